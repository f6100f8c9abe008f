// A conversation is a tree of messages: editing or regenerating adds a sibling, and nothing is lost. All functions are pure.
import type { Role, Sampling, ToolCall } from "../api/types";

export type AnswerStatus = "streaming" | "done" | "stopped" | "broken" | "failed";

export interface Attachment {
  name: string;
  text: string;
}

// What was measured of an answer, or reported with it; undefined: not known.
export interface Numbers {
  ttftMs?: number; // from the request to the first token
  reasoningMs?: number;
  tokensPerSecond?: number; // after the first token
  promptTokens?: number;
  cachedTokens?: number;
  completionTokens?: number;
  reasoningTokens?: number;
  costUsd?: number;
  requestId?: string;
}

export interface Problem {
  kind: "refused" | "unreachable" | "broken" | "interrupted";
  status: number;
  message: string;
  retryAfter?: string;
}

export interface ChatNode {
  id: string;
  parent: string | null;
  role: Exclude<Role, "system">;
  content: string;
  created: number; // milliseconds since 1970
  attachments?: Attachment[]; // of a user's message
  toolCallId?: string; // of a tool's message
  // The rest belongs to answers.
  reasoning?: string;
  toolCalls?: ToolCall[];
  status?: AnswerStatus;
  finish?: string; // the server's finish_reason
  problem?: Problem;
  model?: string;
  settings?: ChatSettings; // what it was asked with
  numbers?: Numbers;
  tokens?: string; // see TokenLog
}

export interface ChatSettings {
  model: string; // empty: the server's first
  system: string;
  thinking: boolean;
  calculator: boolean;
  tools: string; // as it was typed: JSON
  logprobs: boolean;
  sampling: Sampling;
}

export interface Conversation {
  id: string;
  title: string;
  created: number;
  updated: number;
  settings: ChatSettings;
  nodes: Record<string, ChatNode>;
  chosen: Record<string, string>; // by parent (kRoot for the first message): the child that is shown
}

export const kRoot = "root";

export const defaultSettings = (): ChatSettings => ({
  model: "",
  system: "",
  thinking: true,
  calculator: false,
  tools: "",
  logprobs: true,
  sampling: {},
});

// Not crypto.randomUUID: a page over plain HTTP from another machine has none.
export const newId = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

export function newConversation(settings: ChatSettings, now = Date.now()): Conversation {
  return { id: newId(), title: "", created: now, updated: now, settings, nodes: {}, chosen: {} };
}

// Children in the order they were made.
export function childrenOf(conversation: Conversation, parent: string | null): ChatNode[] {
  return Object.values(conversation.nodes)
    .filter((node) => node.parent === parent)
    .sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
}

// The messages that are shown: from the first, by the chosen child each time, the newest where none was chosen.
export function pathOf(conversation: Conversation): ChatNode[] {
  const children = new Map<string, ChatNode[]>();
  for (const node of Object.values(conversation.nodes)) {
    const key = node.parent ?? kRoot;
    const list = children.get(key);
    if (list) list.push(node);
    else children.set(key, [node]);
  }
  const path: ChatNode[] = [];
  const seen = new Set<string>();
  for (let key = kRoot; ;) {
    const list = children.get(key);
    if (!list) return path;
    const newest = list.reduce((a, b) => (b.created >= a.created ? b : a));
    const next = list.find((node) => node.id === conversation.chosen[key]) ?? newest;
    if (seen.has(next.id)) return path;
    seen.add(next.id);
    path.push(next);
    key = next.id;
  }
}

// From the first message to `id`, whatever is shown. Empty where there is no such message.
export function pathTo(conversation: Conversation, id: string | null): ChatNode[] {
  const path: ChatNode[] = [];
  const seen = new Set<string>();
  while (id !== null && !seen.has(id)) {
    seen.add(id);
    const node: ChatNode | undefined = conversation.nodes[id];
    if (!node) break;
    path.push(node);
    id = node.parent;
  }
  return path.reverse();
}

// Adds a message and shows it.
export function withNode(conversation: Conversation, node: ChatNode): Conversation {
  return {
    ...conversation,
    updated: node.created,
    nodes: { ...conversation.nodes, [node.id]: node },
    chosen: { ...conversation.chosen, [node.parent ?? kRoot]: node.id },
  };
}

// Takes the message as it is now; the tree stays as it was.
export function withChangedNode(conversation: Conversation, node: ChatNode): Conversation {
  return { ...conversation, nodes: { ...conversation.nodes, [node.id]: node } };
}

export interface Branch {
  index: number; // from 0
  count: number;
}

export function branchOf(conversation: Conversation, node: ChatNode): Branch {
  const siblings = childrenOf(conversation, node.parent);
  return { index: siblings.findIndex((sibling) => sibling.id === node.id), count: siblings.length };
}

// Shows the sibling that lies `step` further; stays where there is none.
export function switchBranch(conversation: Conversation, node: ChatNode, step: number): Conversation {
  const siblings = childrenOf(conversation, node.parent);
  const next = siblings[siblings.findIndex((sibling) => sibling.id === node.id) + step];
  if (!next) return conversation;
  return { ...conversation, chosen: { ...conversation.chosen, [node.parent ?? kRoot]: next.id } };
}

// A title from the first question: its first line, at most 60 characters.
export function titleFrom(text: string): string {
  const line = text.trim().split(/\r?\n/, 1)[0] ?? "";
  const characters = Array.from(line.slice(0, 200));
  return characters.length > 60 ? `${characters.slice(0, 59).join("")}…` : line;
}

// Which of an answer's calls have no result among the messages after it.
export function openCalls(path: ChatNode[]): ToolCall[] {
  const last = path.findLastIndex((node) => node.role === "assistant");
  const calls = path[last]?.toolCalls ?? [];
  if (path[last]?.status !== "done") return [];
  const answered = new Set(path.slice(last + 1).map((node) => node.toolCallId));
  if (path.slice(last + 1).some((node) => node.role === "user")) return [];
  return calls.filter((call) => !answered.has(call.id));
}
