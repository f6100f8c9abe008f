// The tokens of an answer, tinted by how sure the model was, with the alternatives of the one that is pointed at.
import { useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { type LoggedToken, TokenLog } from "../model/token_log";
import { texts } from "../strings";
import { percent } from "../text/format";
import { visibleToken } from "../text/visible";
import { memo } from "../ui/memo";

const kPerPiece = 200;

// Five steps: 99 %, 90 %, 60 %, 30 %.
const step = (logprob: number): number => {
  const index = [0.99, 0.9, 0.6, 0.3].findIndex((p) => Math.exp(logprob) >= p);
  return index < 0 ? 4 : index;
};

const Piece = memo(function Piece({ tokens, start }: { tokens: LoggedToken[]; start: number }) {
  return (
    <div class="piece">
      {tokens.map((token, i) => (
        <span key={i} data-i={start + i} class={`token sure-${step(token.logprob)}`}>
          {visibleToken(token.text)}
          {token.text.includes("\n") && <br />}
        </span>
      ))}
    </div>
  );
});

function Card({ token }: { token: LoggedToken }) {
  const others = token.top.length ? token.top : [{ text: token.text, logprob: token.logprob }];
  const shown = others.some((other) => other.text === token.text) ? others : [token, ...others];
  return (
    <table>
      <caption class="visually-hidden">{texts.probability.alternatives}</caption>
      <tbody>
        {shown.map((other, i) => (
          <tr key={i} class={other.text === token.text ? "chosen" : ""}>
            <th scope="row">
              <bdi>{visibleToken(other.text)}</bdi>
            </th>
            <td>
              <meter min={0} max={1} value={Math.exp(other.logprob)} aria-hidden="true" />
            </td>
            <td class="number">{percent(Math.exp(other.logprob))}</td>
            <td class="number muted">{other.logprob.toFixed(2)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

export function TokenView({ packed }: { packed: string }) {
  const root = useRef<HTMLDivElement>(null);
  const card = useRef<HTMLDivElement>(null);
  const [at, setAt] = useState<number | undefined>();
  const tokens = useMemo(() => {
    const log = new TokenLog(packed);
    return Array.from({ length: log.length }, (_, i) => log.at(i) ?? { text: "�", logprob: 0, top: [] });
  }, [packed]);
  const parts = useMemo(() => {
    const list: LoggedToken[][] = [];
    for (let i = 0; i < tokens.length; i += kPerPiece) list.push(tokens.slice(i, i + kPerPiece));
    return list;
  }, [tokens]);
  const current = at === undefined ? undefined : tokens[at];

  // The card lies under its token, within the view.
  useLayoutEffect(() => {
    const view = root.current;
    const box = card.current;
    const element = at === undefined ? null : view?.querySelector<HTMLElement>(`[data-i="${at}"]`);
    view?.querySelector(".token.current")?.classList.remove("current");
    if (!view || !box || !element) return;
    element.classList.add("current");
    const frame = view.getBoundingClientRect();
    const token = element.getClientRects()[0] ?? element.getBoundingClientRect();
    box.style.left = `${Math.max(0, Math.min(token.left - frame.left, frame.width - box.offsetWidth))}px`;
    box.style.top = `${token.bottom - frame.top + 6}px`;
  }, [at, tokens]);

  const onKeyDown = (event: KeyboardEvent): void => {
    const steps: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 10, ArrowUp: -10 };
    const move = steps[event.key];
    if (event.key === "Escape") setAt(undefined);
    if (move === undefined) return;
    event.preventDefault();
    const next = Math.max(0, Math.min(tokens.length - 1, (at ?? -1) + move));
    setAt(next);
    root.current?.querySelector(`[data-i="${next}"]`)?.scrollIntoView({ block: "nearest" });
  };
  const onPointer = (event: PointerEvent): void => {
    const index = (event.target as HTMLElement).closest<HTMLElement>("[data-i]")?.dataset["i"];
    if (index !== undefined) setAt(Number(index));
  };
  return (
    <div class="token-view">
      <p class="muted small">{texts.probability.hint}</p>
      <div
        ref={root}
        class="tokens"
        dir="auto"
        role="group"
        tabIndex={0}
        aria-label={texts.probability.list}
        onKeyDown={onKeyDown}
        onPointerOver={onPointer}
        onPointerDown={onPointer}
        onPointerLeave={() => setAt(undefined)}
      >
        {parts.map((part, i) => (
          <Piece key={i} tokens={part} start={i * kPerPiece} />
        ))}
        <div ref={card} class="token-card" role="status" hidden={!current}>
          {current && <Card token={current} />}
        </div>
      </div>
    </div>
  );
}
