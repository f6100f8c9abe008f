// Breaks tokens into lines of a monospaced text, so that every line is equally high and only those in view need exist.
import { visibleToken } from "../text/visible";

export interface TokenRows {
  starts: Uint32Array; // the first token of each row, and the number of tokens at the end
  count: number;
}

// Columns that a text takes: two for the wide characters of East Asia and for pictures.
export function columnsOf(text: string): number {
  let columns = 0;
  for (const character of text) {
    const code = character.codePointAt(0) ?? 0;
    columns += code >= 0x1100 && (code <= 0x115f || (code >= 0x2e80 && code <= 0xffdc) || code >= 0x1f300) ? 2 : 1;
  }
  return columns;
}

// What is drawn of a token: never more than a line.
export function drawnToken(text: string, columns: number): string {
  const shown = visibleToken(text.length > 4 * columns ? text.slice(0, 4 * columns) : text);
  if (shown.length <= columns) return shown;
  return `${Array.from(shown)
    .slice(0, Math.max(1, columns - 1))
    .join("")}…`;
}

export function breakRows(tokens: string[], columns: number): TokenRows {
  const starts: number[] = [];
  let used = columns + 1;
  let feed = false;
  for (let i = 0; i < tokens.length; ++i) {
    const text = tokens[i] ?? "";
    const width = Math.min(columns, columnsOf(drawnToken(text, columns)));
    if (feed || used + width > columns) {
      starts.push(i);
      used = 0;
    }
    used += width;
    feed = text.includes("\n");
  }
  return { starts: Uint32Array.from([...starts, tokens.length]), count: starts.length };
}

export function rowOf(rows: TokenRows, position: number): number {
  let low = 0;
  let high = rows.count;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if ((rows.starts[middle] ?? 0) <= position) low = middle;
    else high = middle;
  }
  return low;
}
