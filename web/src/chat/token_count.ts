// How many tokens the next request would have, asked of the server when typing pauses.
import { useEffect, useState } from "preact/hooks";
import { requestJson } from "../api/client";
import { ApiError } from "../api/error";
import type { Tool, WireMessage } from "../api/types";

const kPauseMs = 500;

export interface TokenCount {
  count: number; // Infinity: more than the context holds, where the server does not count any further
  limit: number | undefined; // the server's context
}

export async function countTokens(
  model: string,
  messages: WireMessage[],
  tools: Tool[],
  signal: AbortSignal,
): Promise<TokenCount> {
  const body = { model, messages, ...(tools.length ? { tools } : {}), add_generation_prompt: true };
  const answer = await requestJson<{ count?: unknown; max_model_len?: unknown }>("/tokenize", body, signal);
  if (typeof answer.count !== "number") throw new Error("/tokenize: no count");
  return { count: answer.count, limit: typeof answer.max_model_len === "number" ? answer.max_model_len : undefined };
}

// Undefined while it is not known: nothing to count, or the server does not say.
export function useTokenCount(model: string, messages: WireMessage[], tools: Tool[]): TokenCount | undefined {
  const [count, setCount] = useState<TokenCount | undefined>();
  const key = JSON.stringify([model, messages, tools]);
  useEffect(() => {
    if (!messages.length) {
      setCount(undefined);
      return;
    }
    const abort = new AbortController();
    const timer = setTimeout(() => {
      countTokens(model, messages, tools, abort.signal).then(setCount, (error: unknown) => {
        if (abort.signal.aborted) return;
        const tooLong = error instanceof ApiError && error.status === 400;
        setCount(tooLong ? { count: Infinity, limit: undefined } : undefined);
      });
    }, kPauseMs);
    return () => {
      clearTimeout(timer);
      abort.abort();
    };
  }, [key]);
  return count;
}
