// One streamed answer.
import { request } from "./client";
import { ApiError, isAbort, messageOf } from "./error";
import { serverEvents } from "./sse";
import type { ChatBody, ChatChunk, TokenLogprob, ToolCallDelta, Usage } from "./types";

export type ChatEvent =
  | { type: "open"; requestId: string; costUsd: number | undefined }
  | { type: "delta"; content: string; reasoning: string; toolCalls: ToolCallDelta[]; logprobs: TokenLogprob[] }
  | { type: "finish"; reason: string }
  | { type: "usage"; usage: Usage };

// Ends after the server's [DONE]. Throws ApiError: "refused" (before the stream, or an error event in it), "unreachable",
// "broken" (the connection closed before the answer was complete); an AbortError when `signal` fired.
export async function* streamChat(body: ChatBody, signal: AbortSignal): AsyncGenerator<ChatEvent> {
  const response = await request("/v1/chat/completions", body, signal);
  const requestId = response.headers.get("x-request-id") ?? "";
  const cost = Number.parseFloat(response.headers.get("x-fathom-cost-usd") ?? "");
  yield { type: "open", requestId, costUsd: Number.isFinite(cost) ? cost : undefined };
  if (!response.body) throw new ApiError("broken", "", response.status, requestId);
  let finished = false;
  try {
    for await (const { event, data } of serverEvents(response.body)) {
      if (data === "[DONE]") return;
      let chunk: ChatChunk;
      try {
        chunk = JSON.parse(data) as ChatChunk;
      } catch {
        throw new ApiError("broken", data.slice(0, 200), response.status, requestId);
      }
      if (event === "error" || chunk.error !== undefined)
        throw new ApiError("refused", messageOf(chunk) ?? data.slice(0, 200), response.status, requestId);
      for (const choice of chunk.choices ?? []) {
        const { content, reasoning_content, tool_calls } = choice.delta ?? {};
        const logprobs = choice.logprobs?.content ?? [];
        if (content || reasoning_content || tool_calls?.length || logprobs.length)
          yield {
            type: "delta",
            content: content ?? "",
            reasoning: reasoning_content ?? "",
            toolCalls: tool_calls ?? [],
            logprobs,
          };
        if (choice.finish_reason) {
          finished = true;
          yield { type: "finish", reason: choice.finish_reason };
        }
      }
      if (chunk.usage) yield { type: "usage", usage: chunk.usage };
    }
  } catch (error) {
    if (error instanceof ApiError || isAbort(error)) throw error;
    // The connection broke: fetch says so with a TypeError.
    throw new ApiError("broken", "", 0, requestId);
  }
  if (!finished) throw new ApiError("broken", "", 0, requestId);
}
