// Conversations out of the browser and into it.
import { texts } from "../strings";
import { type ChatNode, type ChatSettings, type Conversation, defaultSettings, newId } from "./conversation";
import { importMarkdown } from "./transfer_markdown";

const kFormat = "fathom-conversations";
const kVersion = 1;

export function exportJson(conversations: Conversation[]): string {
  return `${JSON.stringify({ format: kFormat, version: kVersion, conversations }, null, 2)}\n`;
}

export type Imported =
  { conversations: Conversation[]; problem?: undefined } | { conversations?: undefined; problem: string };

type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === "object" && value !== null && !Array.isArray(value);
const text = (value: unknown): string => (typeof value === "string" ? value : "");
const number = (value: unknown): number | undefined =>
  typeof value === "number" && Number.isFinite(value) ? value : undefined;

// A file may come from anybody: every member is looked at, what is not known is left out.
function readSettings(value: unknown): ChatSettings {
  const settings = defaultSettings();
  if (!isObject(value)) return settings;
  for (const key of ["model", "system", "tools"] as const) settings[key] = text(value[key]);
  for (const key of ["thinking", "calculator", "logprobs"] as const)
    if (typeof value[key] === "boolean") settings[key] = value[key];
  const sampling = isObject(value["sampling"]) ? value["sampling"] : {};
  for (const key of [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "seed",
    "max_tokens",
  ] as const) {
    const given = number(sampling[key]);
    if (given !== undefined) settings.sampling[key] = given;
  }
  if (Array.isArray(sampling["stop"]))
    settings.sampling.stop = sampling["stop"].filter((stop): stop is string => typeof stop === "string");
  return settings;
}

function readNode(value: unknown): ChatNode | undefined {
  if (!isObject(value)) return undefined;
  const { id, parent, role, content } = value;
  if (typeof id !== "string" || !(parent === null || typeof parent === "string") || typeof content !== "string")
    return undefined;
  if (role !== "user" && role !== "assistant" && role !== "tool") return undefined;
  const node: ChatNode = { id, parent, role, content, created: number(value["created"]) ?? 0 };
  if (Array.isArray(value["attachments"]))
    node.attachments = value["attachments"]
      .filter(isObject)
      .map((file) => ({ name: text(file["name"]), text: text(file["text"]) }));
  if (Array.isArray(value["toolCalls"]))
    node.toolCalls = value["toolCalls"].filter(isObject).map((call) => {
      const called = isObject(call["function"]) ? call["function"] : {};
      return {
        id: text(call["id"]),
        type: "function",
        function: { name: text(called["name"]), arguments: text(called["arguments"]) },
      };
    });
  for (const key of ["toolCallId", "reasoning", "finish", "model", "tokens"] as const)
    if (typeof value[key] === "string") node[key] = value[key];
  if (role === "assistant") {
    const status = value["status"];
    node.status = status === "done" || status === "stopped" || status === "failed" ? status : "broken";
    if (isObject(value["settings"])) node.settings = readSettings(value["settings"]);
    if (isObject(value["numbers"])) {
      const given = value["numbers"];
      node.numbers = { requestId: text(given["requestId"]) };
      for (const key of [
        "ttftMs",
        "reasoningMs",
        "tokensPerSecond",
        "promptTokens",
        "cachedTokens",
        "completionTokens",
        "reasoningTokens",
        "costUsd",
      ] as const) {
        const measured = number(given[key]);
        if (measured !== undefined) node.numbers[key] = measured;
      }
    }
  }
  return node;
}

function readConversation(value: unknown): Conversation | undefined {
  if (!isObject(value) || !isObject(value["nodes"])) return undefined;
  // New ids: importing twice makes two, and a file never overwrites what is there.
  const ids = new Map<string, string>();
  const read = Object.values(value["nodes"]).map(readNode);
  if (read.some((node) => !node)) return undefined;
  const nodes = read as ChatNode[];
  for (const node of nodes) ids.set(node.id, newId());
  if (nodes.some((node) => node.parent !== null && !ids.has(node.parent))) return undefined;
  const renamed = nodes.map((node) => ({
    ...node,
    id: ids.get(node.id) as string,
    parent: node.parent === null ? null : (ids.get(node.parent) as string),
  }));
  const chosen: Record<string, string> = {};
  for (const [parent, child] of Object.entries(isObject(value["chosen"]) ? value["chosen"] : {})) {
    const to = ids.get(text(child));
    const from = parent === "root" ? parent : ids.get(parent);
    if (to && from) chosen[from] = to;
  }
  return {
    id: newId(),
    title: text(value["title"]).slice(0, 200),
    created: number(value["created"]) ?? Date.now(),
    updated: number(value["updated"]) ?? Date.now(),
    settings: readSettings(value["settings"]),
    nodes: Object.fromEntries(renamed.map((node) => [node.id, node])),
    chosen,
  };
}

// JSON or Markdown, as exported here.
export function importText(source: string): Imported {
  if (!source.trimStart().startsWith("#")) return importJson(source);
  const conversation = importMarkdown(source);
  return conversation ? { conversations: [conversation] } : { problem: texts.transfer.notOurs };
}

// All or nothing.
export function importJson(source: string): Imported {
  let json: unknown;
  try {
    json = JSON.parse(source);
  } catch (error) {
    return { problem: `${texts.transfer.notJson} ${error instanceof Error ? error.message : ""}` };
  }
  if (!isObject(json) || json["format"] !== kFormat || !Array.isArray(json["conversations"]))
    return { problem: texts.transfer.notOurs };
  if (json["version"] !== kVersion) return { problem: `${texts.transfer.version} ${String(json["version"])}` };
  const read = json["conversations"].map(readConversation);
  const bad = read.findIndex((conversation) => !conversation);
  if (bad >= 0) return { problem: `${texts.transfer.damaged} ${bad + 1}` };
  return { conversations: read as Conversation[] };
}
