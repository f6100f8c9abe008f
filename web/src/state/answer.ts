// Sending: from a question, a regeneration or a broken answer to text that grows on the page.
import { signal } from "@preact/signals";
import { streamChat } from "../api/chat_stream";
import { ApiError, isAbort } from "../api/error";
import type { ToolCall, ToolCallDelta, Usage } from "../api/types";
import {
  type Attachment,
  type ChatNode,
  type Conversation,
  newId,
  openCalls,
  pathOf,
  pathTo,
  type Problem,
  withChangedNode,
  withNode,
} from "../model/conversation";
import { chatBody } from "../model/request";
import { TokenLog } from "../model/token_log";
import { calculatorTool } from "../model/tools";
import { texts } from "../strings";
import { costOf } from "./cost";
import { conversationOf, keepNode, live, liveOf, modelOf, tell, update } from "./session";

const kPaintMs = 40; // between two paints of a growing answer: smooth to the eye, and most of a frame left for scrolling
const kKeepMs = 2000; // between two writes of it to the database
const kMostRounds = 8; // calculator calls in a row

const problemOf = (error: unknown): Problem =>
  error instanceof ApiError
    ? { kind: error.kind, status: error.status, message: error.message, retryAfter: error.retryAfter }
    : { kind: "broken", status: 0, message: String(error) };

function addCall(calls: ToolCall[], delta: ToolCallDelta): void {
  const call = (calls[delta.index] ??= { id: "", type: "function", function: { name: "", arguments: "" } });
  if (delta.id) call.id = delta.id;
  call.function.name += delta.function?.name ?? "";
  call.function.arguments += delta.function?.arguments ?? "";
}

function applyUsage(node: ChatNode, usage: Usage): void {
  const numbers = (node.numbers ??= {});
  numbers.promptTokens = usage.prompt_tokens;
  numbers.cachedTokens = usage.prompt_cache_hit_tokens ?? usage.prompt_tokens_details?.cached_tokens;
  numbers.completionTokens = usage.completion_tokens;
  numbers.reasoningTokens = usage.completion_tokens_details?.reasoning_tokens;
}

// Answers below `parent`, the last message of what is asked. `continued`: the answer to take up instead.
export async function answer(conversationId: string, parent: string | null, continued?: ChatNode): Promise<void> {
  const conversation = conversationOf(conversationId);
  if (!conversation || liveOf(conversationId)) return;
  const { settings } = conversation;
  const model = modelOf(settings);
  const body = chatBody(
    settings,
    model?.id ?? settings.model,
    pathTo(conversation, continued?.id ?? parent),
    !!continued,
  );

  // Changed in place while it comes; the page is given copies.
  const node: ChatNode = {
    ...(continued ?? { id: newId(), parent, role: "assistant", content: "", created: Date.now() }),
    status: "streaming",
    model: body.model,
    settings,
  };
  delete node.problem;
  delete node.numbers; // of this request; what an earlier one took is added at the end
  const log = new TokenLog(continued?.tokens);
  const calls: ToolCall[] = [];
  const shown = signal<ChatNode>({ ...node });
  const abort = new AbortController();
  update(continued ? withChangedNode(conversation, { ...node }) : withNode(conversation, { ...node }), [{ ...node }]);
  live.value = new Map(live.value).set(node.id, { conversation: conversationId, node: shown, abort });

  const begun = performance.now();
  let first = 0,
    last = 0,
    thinks = false,
    tokens = 0,
    painted = 0,
    keptAt = begun;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const paint = (): void => {
    timer = undefined;
    painted = performance.now();
    if (calls.length) node.toolCalls = calls.map((call) => ({ ...call, function: { ...call.function } }));
    shown.value = { ...node };
    if (painted - keptAt > kKeepMs) {
      keptAt = painted;
      keepNode(conversationId, { ...node });
    }
  };

  try {
    for await (const event of streamChat(body, abort.signal)) {
      const numbers = (node.numbers ??= {});
      if (event.type === "open") {
        numbers.requestId = event.requestId;
        if (event.costUsd !== undefined) numbers.costUsd = event.costUsd;
      } else if (event.type === "delta") {
        last = performance.now();
        tokens += Math.max(1, event.logprobs.length);
        if (!first) {
          first = last;
          numbers.ttftMs = first - begun;
        }
        if (event.reasoning) {
          node.reasoning = (node.reasoning ?? "") + event.reasoning;
          thinks = true;
        }
        if (thinks) numbers.reasoningMs = last - first;
        if (event.content || event.toolCalls.length) thinks = false;
        node.content += event.content;
        for (const delta of event.toolCalls) addCall(calls, delta);
        for (const token of event.logprobs) log.push(token);
        timer ??= setTimeout(paint, Math.max(0, kPaintMs - (last - painted)));
      } else if (event.type === "finish") {
        node.finish = event.reason;
      } else {
        applyUsage(node, event.usage);
      }
    }
    node.status = "done";
  } catch (error) {
    if (isAbort(error)) {
      node.status = "stopped";
    } else {
      node.problem = problemOf(error);
      node.status = node.content || node.reasoning ? "broken" : "failed";
    }
  }
  clearTimeout(timer);
  finish(node, calls, log, { tokens: node.numbers?.completionTokens ?? tokens, first, last }, model?.price);
  if (continued?.numbers) addEarlier(node, continued.numbers);
  const after = conversationOf(conversationId);
  const rest = new Map(live.value);
  rest.delete(node.id);
  if (after) update(withChangedNode({ ...after, updated: Date.now() }, node), [node]);
  live.value = rest;
  if (node.status === "done") await runCalculator(conversationId);
}

function finish(
  node: ChatNode,
  calls: ToolCall[],
  log: TokenLog,
  timing: { tokens: number; first: number; last: number },
  price: Parameters<typeof costOf>[1],
): void {
  if (calls.length) node.toolCalls = calls.filter((call) => call.function.name);
  if (log.length) node.tokens = log.packed();
  const numbers = (node.numbers ??= {});
  if (timing.tokens > 1 && timing.last > timing.first)
    numbers.tokensPerSecond = ((timing.tokens - 1) * 1000) / (timing.last - timing.first);
  numbers.completionTokens ??= timing.tokens || undefined;
  numbers.costUsd ??= costOf(numbers, price);
}

// An answer that was taken up again has cost, said and thought what both requests did.
function addEarlier(node: ChatNode, earlier: NonNullable<ChatNode["numbers"]>): void {
  const numbers = (node.numbers ??= {});
  const sum = (a?: number, b?: number): number | undefined =>
    a === undefined && b === undefined ? undefined : (a ?? 0) + (b ?? 0);
  numbers.costUsd = sum(numbers.costUsd, earlier.costUsd);
  numbers.completionTokens = sum(numbers.completionTokens, earlier.completionTokens);
  numbers.reasoningTokens = sum(numbers.reasoningTokens, earlier.reasoningTokens);
  numbers.reasoningMs = sum(numbers.reasoningMs, earlier.reasoningMs);
}

export function send(conversation: Conversation, content: string, attachments: Attachment[]): void {
  const parent = pathOf(conversation).at(-1)?.id ?? null;
  ask(conversation, parent, content, attachments);
}

function ask(conversation: Conversation, parent: string | null, content: string, attachments: Attachment[]): void {
  const node: ChatNode = { id: newId(), parent, role: "user", content, created: Date.now() };
  if (attachments.length) node.attachments = attachments;
  update(withNode(conversation, node), [node]);
  void answer(conversation.id, node.id);
}

// A changed question beside the old one.
export function resend(conversation: Conversation, node: ChatNode, content: string): void {
  ask(conversation, node.parent, content, node.attachments ?? []);
}

export const regenerate = (conversation: Conversation, node: ChatNode): void =>
  void answer(conversation.id, node.parent);

export const continueAnswer = (conversation: Conversation, node: ChatNode): void =>
  void answer(conversation.id, node.parent, node);

export function stop(conversationId: string): void {
  liveOf(conversationId)?.abort.abort();
}

// The results of all open calls, in their order; then the model goes on.
export function sendResults(conversationId: string, results: { call: ToolCall; result: string }[]): void {
  let conversation = conversationOf(conversationId);
  if (!conversation) return;
  let parent = pathOf(conversation).at(-1)?.id ?? null;
  const added: ChatNode[] = [];
  for (const { call, result } of results) {
    const node: ChatNode = {
      id: newId(),
      parent,
      role: "tool",
      content: result,
      toolCallId: call.id,
      created: Date.now() + added.length,
    };
    conversation = withNode(conversation, node);
    added.push(node);
    parent = node.id;
  }
  update(conversation, added);
  void answer(conversationId, parent);
}

// Where all open calls are the calculator's and it is on, they are answered without asking.
async function runCalculator(conversationId: string): Promise<void> {
  const conversation = conversationOf(conversationId);
  if (!conversation?.settings.calculator) return;
  const path = pathOf(conversation);
  const open = openCalls(path);
  if (!open.length || open.some((call) => call.function.name !== calculatorTool.function.name)) return;
  const lastQuestion = path.findLastIndex((node) => node.role === "user");
  if (path.slice(lastQuestion + 1).filter((node) => node.role === "assistant").length > kMostRounds) {
    tell(texts.tools.tooMany);
    return;
  }
  const { calculate } = await import("../model/calculator");
  sendResults(
    conversationId,
    open.map((call) => ({ call, result: calculate(call.function.arguments) })),
  );
}
