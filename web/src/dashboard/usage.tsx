// What was used and what it cost, from the ledger.
import { useEffect, useState } from "preact/hooks";
import { requestJson } from "../api/client";
import { ApiError } from "../api/error";
import { texts } from "../strings";
import { percent, usd, whole } from "../text/format";
import { visible } from "../text/visible";
import { asProblem, ProblemBox } from "../ui/problem";

export interface UsageRow {
  key?: string;
  day?: string;
  model?: string;
  requests: number;
  prompt_tokens: number;
  cached_tokens: number;
  completion_tokens: number;
  cost_usd: number;
}
export type UsageBy = "key" | "day" | "model";

const kNumbers = ["requests", "prompt_tokens", "cached_tokens", "completion_tokens", "cost_usd"] as const;

// Rows put together by one member; the largest cost first, days by date.
export function groupUsage(rows: UsageRow[], by: UsageBy): (UsageRow & { name: string })[] {
  const groups = new Map<string, UsageRow & { name: string }>();
  for (const row of rows) {
    const name = row[by] ?? "";
    const group = groups.get(name) ?? {
      name,
      requests: 0,
      prompt_tokens: 0,
      cached_tokens: 0,
      completion_tokens: 0,
      cost_usd: 0,
    };
    for (const key of kNumbers) group[key] += Number(row[key]) || 0;
    groups.set(name, group);
  }
  return [...groups.values()].sort((a, b) => (by === "day" ? b.name.localeCompare(a.name) : b.cost_usd - a.cost_usd));
}

const t = texts.dashboard;
const kBy: [UsageBy, string][] = [
  ["day", t.day],
  ["key", t.key],
  ["model", t.model],
];

export function UsageView({ tick }: { tick: number }) {
  const [by, setBy] = useState<UsageBy>("day");
  const [rows, setRows] = useState<UsageRow[] | undefined>();
  const [problem, setProblem] = useState<ApiError | undefined>();
  useEffect(() => {
    const abort = new AbortController();
    requestJson<{ rows?: UsageRow[] }>(`/v1/usage?by=${by}`, undefined, abort.signal).then(
      (answer) => {
        setRows(Array.isArray(answer.rows) ? answer.rows : []);
        setProblem(undefined);
      },
      (error: unknown) => {
        if (error instanceof ApiError) setProblem(error);
      },
    );
    return () => abort.abort();
  }, [by, tick]);
  const groups = groupUsage(rows ?? [], by);
  const all = groupUsage(
    (rows ?? []).map((row) => ({ ...row, day: t.total })),
    "day",
  )[0];
  const cells = (row: UsageRow) => (
    <>
      <td>{usd(row.cost_usd)}</td>
      <td>{whole(row.requests)}</td>
      <td>{whole(row.prompt_tokens)}</td>
      <td>{row.prompt_tokens ? percent(row.cached_tokens / row.prompt_tokens) : "–"}</td>
      <td>{whole(row.completion_tokens)}</td>
    </>
  );
  return (
    <section class="card usage">
      <div class="row between">
        <h2>{t.cost}</h2>
        <fieldset class="segments">
          <legend class="visually-hidden">{t.by}</legend>
          {kBy.map(([value, name]) => (
            <label key={value}>
              <input type="radio" name="usage-by" checked={by === value} onChange={() => setBy(value)} />
              <span>{name}</span>
            </label>
          ))}
        </fieldset>
      </div>
      {problem && <ProblemBox problem={asProblem(problem)} />}
      {rows?.length === 0 && <p class="muted">{t.noUsage}</p>}
      {groups.length > 0 && (
        <div class="table-scroll" tabIndex={0} role="region" aria-label={t.cost}>
          <table>
            <thead>
              <tr>
                <th scope="col">{kBy.find(([value]) => value === by)?.[1]}</th>
                <th scope="col">{t.usd}</th>
                <th scope="col">{t.count}</th>
                <th scope="col">{t.promptTokens}</th>
                <th scope="col">{t.cachedTokens}</th>
                <th scope="col">{t.completionTokens}</th>
              </tr>
            </thead>
            <tbody>
              {groups.map((group) => (
                <tr key={group.name}>
                  <th scope="row">
                    <bdi>{visible(group.name) || "–"}</bdi>
                  </th>
                  {cells(group)}
                </tr>
              ))}
            </tbody>
            {all && groups.length > 1 && (
              <tfoot>
                <tr>
                  <th scope="row">{t.total}</th>
                  {cells(all)}
                </tr>
              </tfoot>
            )}
          </table>
        </div>
      )}
    </section>
  );
}
