// The text with what one query token attends to drawn over it. Only the lines in view exist, however long the text is.
import { useEffect, useLayoutEffect, useMemo, useRef, useState } from "preact/hooks";
import { texts } from "../strings";
import { whole } from "../text/format";
import { breakRows, drawnToken, rowOf } from "./token_rows";

const kRowPx = 28; // .lens-row in lens.css
const kOverscan = 12; // rows above and below the view
const kGutter = 8; // columns for the positions

interface Props {
  tokens: string[];
  levels: Uint8Array; // by token
  query: number;
  cursor: number; // the token that the keyboard is at; scrolled into view when it changes
  onCursor: (position: number) => void;
  onQuery: (position: number) => void;
}

export function LensText({ tokens, levels, query, cursor, onCursor, onQuery }: Props) {
  const view = useRef<HTMLDivElement>(null);
  const probe = useRef<HTMLSpanElement>(null);
  const [columns, setColumns] = useState(60);
  const [range, setRange] = useState({ from: 0, to: 40 });

  useLayoutEffect(() => {
    const element = view.current;
    if (!element) return;
    const measure = (): void => {
      const character = (probe.current?.getBoundingClientRect().width ?? 80) / 10;
      setColumns(Math.max(12, Math.floor((element.clientWidth - 24) / character) - kGutter));
      look();
    };
    const look = (): void => {
      const from = Math.max(0, Math.floor(element.scrollTop / kRowPx) - kOverscan);
      const to = Math.ceil((element.scrollTop + element.clientHeight) / kRowPx) + kOverscan;
      setRange((old) => (old.from === from && old.to === to ? old : { from, to }));
    };
    const observer = new ResizeObserver(measure);
    observer.observe(element);
    element.addEventListener("scroll", look, { passive: true });
    return () => {
      observer.disconnect();
      element.removeEventListener("scroll", look);
    };
  }, []);

  const rows = useMemo(() => breakRows(tokens, columns), [tokens, columns]);

  useEffect(() => {
    const element = view.current;
    if (!element) return;
    const top = rowOf(rows, cursor) * kRowPx;
    if (top < element.scrollTop || top + kRowPx > element.scrollTop + element.clientHeight)
      element.scrollTop = top - element.clientHeight / 2;
  }, [cursor, rows]);

  const onKeyDown = (event: KeyboardEvent): void => {
    const row = rowOf(rows, cursor);
    const offset = cursor - (rows.starts[row] ?? 0);
    const inRow = (to: number): number => {
      const at = Math.max(0, Math.min(rows.count - 1, to));
      return Math.min((rows.starts[at] ?? 0) + offset, (rows.starts[at + 1] ?? 1) - 1);
    };
    const page = Math.max(1, Math.floor((view.current?.clientHeight ?? kRowPx) / kRowPx) - 1);
    const moves: Record<string, () => number> = {
      ArrowLeft: () => cursor - 1,
      ArrowRight: () => cursor + 1,
      ArrowUp: () => inRow(row - 1),
      ArrowDown: () => inRow(row + 1),
      PageUp: () => inRow(row - page),
      PageDown: () => inRow(row + page),
      Home: () => 0,
      End: () => tokens.length - 1,
    };
    const move = moves[event.key];
    if (move) {
      event.preventDefault();
      onCursor(Math.max(0, Math.min(tokens.length - 1, move())));
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      onQuery(cursor);
    }
  };

  const shown = [];
  for (let row = range.from; row < Math.min(range.to, rows.count); ++row) {
    const start = rows.starts[row] ?? 0;
    const end = rows.starts[row + 1] ?? start;
    const spans = [];
    for (let i = start; i < end; ++i) {
      const name = `t l${levels[i] ?? 0}${i === query ? " query" : ""}${i > query ? " after" : ""}${i === cursor ? " at" : ""}`;
      spans.push(
        <span key={i} data-i={i} class={name}>
          {drawnToken(tokens[i] ?? "", columns)}
        </span>,
      );
    }
    shown.push(
      <div class="lens-row" key={row} style={{ top: `${row * kRowPx}px` }}>
        <span class="gutter" aria-hidden="true">
          {whole(start)}
        </span>
        {spans}
      </div>,
    );
  }
  return (
    <div
      class="lens-text mono"
      ref={view}
      tabIndex={0}
      role="group"
      aria-label={texts.lens.textLabel}
      onKeyDown={onKeyDown}
      onClick={(event) => {
        const index = (event.target as HTMLElement).closest<HTMLElement>("[data-i]")?.dataset["i"];
        if (index === undefined) return;
        onCursor(Number(index));
        onQuery(Number(index));
      }}
    >
      <span ref={probe} class="probe" aria-hidden="true">
        0000000000
      </span>
      <div class="lens-rows" style={{ height: `${rows.count * kRowPx}px` }}>
        {shown}
      </div>
    </div>
  );
}
