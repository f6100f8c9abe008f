// What sparse attention looks at.
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { request } from "../api/client";
import { ApiError, isAbort } from "../api/error";
import type { Problem } from "../model/conversation";
import { current, modelOf } from "../state/session";
import { lensInput } from "../state/lens_input";
import "../style/lens.css";
import { texts } from "../strings";
import { compact, percent, three, whole } from "../text/format";
import { visibleToken } from "../text/visible";
import { CodeDialog } from "../ui/code_dialog";
import { IconButton } from "../ui/controls";
import { ProblemBox } from "../ui/problem";
import {
  type LensCost,
  type LensLayer,
  type LensQuery,
  type LensResult,
  levelsOf,
  readLens,
  strongest,
} from "./lens_data";
import { LensMapView } from "./lens_map";
import { LensText } from "./lens_text";

const kMapCells = 256; // rows and columns: one pixel each on the smallest screen
const kPauseMs = 150; // while a query is chosen with the keyboard
const t = texts.lens;

function inputBody(model: string): object {
  const input = lensInput.value;
  if (input.kind === "text") return { model, prompt: input.prompt };
  return { model, messages: input.messages, ...(input.tools.length ? { tools: input.tools } : {}) };
}

function Bar({ share, class: name }: { share: number; class?: string }) {
  return (
    <span class={`bar ${name ?? ""}`} aria-hidden="true">
      <span style={{ width: `${Math.max(0, Math.min(1, share)) * 100}%` }} />
    </span>
  );
}

// What choosing keys saves; the choice itself costs something, which short texts do not earn back.
function comparison(dense: number, sparse: number): string {
  if (dense > sparse * 1.005) return t.saved(three(dense / Math.max(1, sparse)));
  return sparse > dense * 1.005 ? t.more(three(sparse / Math.max(1, dense))) : t.same;
}

function CostView({ cost }: { cost: LensCost }) {
  const rows: [string, number, number, string][] = [
    [t.flops, cost.denseFlops, cost.sparseFlops, "FLOP"],
    [t.bytes, cost.denseBytes, cost.sparseBytes, "B"],
  ];
  return (
    <section class="card">
      <h2>{t.cost}</h2>
      {rows.map(([name, dense, sparse, unit]) => (
        <div class="cost" key={name}>
          <p>
            <strong>{name}</strong> <span class="muted">{comparison(dense, sparse)}</span>
          </p>
          <dl>
            <dt>{t.denseWord}</dt>
            <dd>{compact(dense, unit)}</dd>
            <dd>
              <Bar share={dense / Math.max(dense, sparse, 1)} class="dense" />
            </dd>
            <dt>{t.sparse}</dt>
            <dd>{compact(sparse, unit)}</dd>
            <dd>
              <Bar share={sparse / Math.max(dense, sparse, 1)} />
            </dd>
          </dl>
        </div>
      ))}
    </section>
  );
}

function LayerTable(props: { layers: LensLayer[]; query: number; chosen: number; onChoose: (index: number) => void }) {
  return (
    <section class="card">
      <h2>{t.recall}</h2>
      <div class="layer-list">
        {props.layers.map((layer, i) => {
          const query = layer.queries.get(props.query);
          return (
            <button
              key={layer.layer}
              type="button"
              class="quiet"
              aria-pressed={i === props.chosen}
              onClick={() => props.onChoose(i)}
            >
              <span>
                {t.layer} {layer.layer}
              </span>
              {query?.recall === undefined ? (
                <span class="muted small">{query ? `${whole(query.selected.length)} · ${t.recallNone}` : "…"}</span>
              ) : (
                <>
                  <Bar share={query.recall} />
                  <span class="number">{percent(query.recall)}</span>
                </>
              )}
            </button>
          );
        })}
      </div>
    </section>
  );
}

function Loads({ load }: { load: Float32Array | undefined }) {
  if (!load?.length)
    return (
      <section class="card">
        <h2>{t.loads}</h2>
        <p class="muted">{t.loadsNone}</p>
      </section>
    );
  const most = load.reduce((a, b) => Math.max(a, b), 0);
  const words = Array.from(load, (value, i) => `${t.expert} ${i}: ${whole(value)}`);
  return (
    <section class="card">
      <h2>{t.loads}</h2>
      <div class={`loads ${load.length > 64 ? "dense" : ""}`} role="img" aria-label={`${t.loads}. ${words.join(", ")}`}>
        {words.map((word, i) => (
          <span key={i} title={word} style={{ height: `${most > 0 ? ((load[i] ?? 0) / most) * 100 : 0}%` }} />
        ))}
      </div>
    </section>
  );
}

function Strongest({
  query,
  tokens,
  onChoose,
}: {
  query: LensQuery;
  tokens: string[];
  onChoose: (position: number) => void;
}) {
  return (
    <section class="card">
      <h2>{t.top}</h2>
      <table class="strongest">
        <thead>
          <tr>
            <th scope="col">{t.position}</th>
            <th scope="col">{t.token}</th>
            <th scope="col">{t.score}</th>
          </tr>
        </thead>
        <tbody>
          {strongest(query, 12).map(({ position, score }) => (
            <tr key={position}>
              <td>
                <button type="button" class="quiet small number" onClick={() => onChoose(position)}>
                  {whole(position)}
                </button>
              </td>
              <td class="mono">
                <bdi>{visibleToken((tokens[position] ?? "").slice(0, 40))}</bdi>
              </td>
              <td class="number">{score.toFixed(2)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}

function Input({ busy, onRun }: { busy: boolean; onRun: () => void }) {
  const input = lensInput.value;
  return (
    <form class="lens-input" onSubmit={(event) => (event.preventDefault(), onRun())}>
      {input.kind === "text" ? (
        <textarea
          rows={4}
          aria-label={t.input}
          placeholder={t.placeholder}
          value={input.prompt}
          onInput={(event) => (lensInput.value = { kind: "text", prompt: event.currentTarget.value })}
        />
      ) : (
        <p class="panel">
          {t.messages(input.messages.length)}
          <button type="button" class="small" onClick={() => (lensInput.value = { kind: "text", prompt: "" })}>
            {t.useText}
          </button>
        </p>
      )}
      <button type="submit" class="primary" disabled={busy || (input.kind === "text" && !input.prompt.trim())}>
        {busy ? t.running : t.run}
      </button>
    </form>
  );
}

function Result({ result, onQuery }: { result: LensResult; onQuery: (position: number) => void }) {
  const last = result.tokens.length - 1;
  const [index, setIndex] = useState(0);
  const [query, setQuery] = useState(last);
  const [cursor, setCursor] = useState(last);
  const layer = result.layers[Math.min(index, result.layers.length - 1)];
  const found = layer?.queries.get(query);
  const levels = useMemo(() => levelsOf(found, result.tokens.length), [found, result.tokens]);
  const choose = (position: number): void => {
    setQuery(position);
    setCursor(position);
    onQuery(position);
  };
  if (!layer) return null;
  return (
    <>
      <div class="lens-controls">
        <label class="field">
          <span>
            {t.layer} {layer.layer}
          </span>
          <input
            type="range"
            min={0}
            max={result.layers.length - 1}
            value={index}
            aria-valuetext={`${t.layer} ${layer.layer}`}
            onInput={(event) => setIndex(event.currentTarget.valueAsNumber)}
          />
        </label>
        <label class="field position">
          <span>{t.query}</span>
          <input
            type="number"
            min={0}
            max={last}
            value={query}
            onChange={(event) => {
              const position = event.currentTarget.valueAsNumber;
              if (Number.isInteger(position) && position >= 0 && position <= last) choose(position);
            }}
          />
        </label>
        <p class="lens-summary" role="status">
          <code>{visibleToken((result.tokens[query] ?? "").slice(0, 40))}</code>{" "}
          {found && t.attended(whole(found.selected.length), whole(query + 1))}
          {found?.recall !== undefined && ` · ${t.recall}: ${percent(found.recall)}`}
          {found && found.selected.length === query + 1 && <span class="muted"> {t.dense}</span>}
        </p>
      </div>
      <div class="lens-grid">
        <section class="lens-main">
          <h2>
            {t.text}{" "}
            <span class="muted small">
              {t.tokens(whole(result.tokens.length))}. {t.queryHint}
            </span>
          </h2>
          <LensText
            tokens={result.tokens}
            levels={levels}
            query={query}
            cursor={cursor}
            onCursor={setCursor}
            onQuery={choose}
          />
        </section>
        <div class="lens-side">
          <section class="card">
            <h2>{t.map}</h2>
            {layer.map ? (
              <LensMapView
                map={layer.map}
                layer={layer.layer}
                length={result.tokens.length}
                query={query}
                onChoose={(position, key) => {
                  choose(position);
                  setCursor(key);
                }}
              />
            ) : (
              <p class="muted">{t.noMap}</p>
            )}
          </section>
          {result.cost && <CostView cost={result.cost} />}
          <LayerTable layers={result.layers} query={query} chosen={index} onChoose={setIndex} />
          <Loads load={layer.expertLoad} />
          {found && <Strongest query={found} tokens={result.tokens} onChoose={setCursor} />}
        </div>
      </div>
    </>
  );
}

export function LensPage() {
  const [result, setResult] = useState<LensResult | undefined>();
  const [run, setRun] = useState(0); // counts texts: each has a view of its own
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | undefined>();
  const [codeShown, setCodeShown] = useState(false);
  const abort = useRef<AbortController>();
  const timer = useRef<ReturnType<typeof setTimeout>>();
  const body = useRef<object>({});
  const held = useRef<LensResult>();
  const model = modelOf(current.value.settings)?.id ?? "";

  const ask = async (extra: object, before: LensResult | undefined): Promise<void> => {
    abort.current?.abort();
    const mine = (abort.current = new AbortController());
    setBusy(true);
    setProblem(undefined);
    try {
      const response = await request("/v1/lens", { ...body.current, ...extra }, mine.signal);
      held.current = readLens(await response.json(), before);
      setResult(held.current);
      if (!before) setRun((n) => n + 1);
    } catch (error) {
      if (isAbort(error)) return;
      setProblem(
        error instanceof ApiError
          ? { kind: error.kind, status: error.status, message: error.message, retryAfter: error.retryAfter }
          : { kind: "refused", status: -1, message: error instanceof Error ? error.message : String(error) },
      );
    } finally {
      if (abort.current === mine) setBusy(false);
    }
  };
  const look = (): void => {
    body.current = inputBody(model);
    setResult(undefined);
    void ask({ map: { rows: kMapCells, cols: kMapCells } }, undefined);
  };
  // What is known already is shown at once; a query that is not is asked for when the choosing pauses.
  const onQuery = (position: number): void => {
    clearTimeout(timer.current);
    if (held.current?.layers[0]?.queries.has(position)) return;
    timer.current = setTimeout(() => void ask({ queries: [position], tokens: false }, held.current), kPauseMs);
  };
  useEffect(() => {
    if (lensInput.value.kind === "chat" && model) look();
    return () => {
      clearTimeout(timer.current);
      abort.current?.abort();
    };
  }, [model]);

  return (
    <div class="page lens">
      <header class="page-head">
        <h1>{t.title}</h1>
        <span class="grow" />
        <IconButton icon="code" label={texts.chat.code} onClick={() => setCodeShown(true)} />
      </header>
      <p class="muted lead">{t.intro}</p>
      <Input busy={busy} onRun={look} />
      {problem && <ProblemBox problem={problem} />}
      {result && <Result key={run} result={result} onQuery={onQuery} />}
      {codeShown && (
        <CodeDialog
          path="/v1/lens"
          body={{ ...inputBody(model), map: { rows: kMapCells, cols: kMapCells } }}
          onClose={() => setCodeShown(false)}
        />
      )}
    </div>
  );
}
