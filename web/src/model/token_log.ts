// The tokens of an answer with their probabilities, one JSON text each: compact to keep, quick to append to, and taken
// apart only for the tokens that are looked at.
import type { TokenLogprob } from "../api/types";

export interface LoggedToken {
  text: string;
  logprob: number;
  top: { text: string; logprob: number }[];
}

type Packed = [string, number, [string, number][]];

const decoder = new TextDecoder("utf-8", { fatal: true });

// A token that holds part of a character is shown by its bytes.
function textOf(token: { token: string; bytes?: number[] | null }): string {
  if (!token.bytes?.length) return token.token;
  try {
    return decoder.decode(Uint8Array.from(token.bytes));
  } catch {
    return token.bytes.map((byte) => `\\x${byte.toString(16).padStart(2, "0")}`).join("");
  }
}

const rounded = (value: number): number => Math.round(value * 1e4) / 1e4;

export class TokenLog {
  private lines: string[];

  constructor(packed = "") {
    this.lines = packed ? packed.split("\n") : [];
  }

  push(token: TokenLogprob): void {
    const top = (token.top_logprobs ?? []).map((other): [string, number] => [textOf(other), rounded(other.logprob)]);
    const packed: Packed = [textOf(token), rounded(token.logprob), top];
    this.lines.push(JSON.stringify(packed));
  }

  get length(): number {
    return this.lines.length;
  }

  at(index: number): LoggedToken | undefined {
    const line = this.lines[index];
    if (line === undefined) return undefined;
    try {
      const [text, logprob, top] = JSON.parse(line) as Packed;
      return { text, logprob, top: top.map(([other, value]) => ({ text: other, logprob: value })) };
    } catch {
      return undefined; // an import that was tampered with
    }
  }

  packed(): string {
    return this.lines.join("\n");
  }
}
