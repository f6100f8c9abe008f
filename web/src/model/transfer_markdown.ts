// Conversations as Markdown: for people to read, and back, as far as Markdown holds them: one branch, without what was measured.
import type { ToolCall } from "../api/types";
import { texts } from "../strings";
import {
  type ChatNode,
  type Conversation,
  defaultSettings,
  newConversation,
  newId,
  openCalls,
  pathOf,
  withNode,
} from "./conversation";
import { contentWithFiles } from "./request";

const kSpeakers = { user: texts.chat.you, assistant: texts.chat.model, tool: texts.tools.result };
const kSystem = texts.settings.system;
const kReasoning = `> *${texts.chat.reasoning}*`;

// A line of a text that looks like one of the headings gets a backslash, which Markdown takes for none.
const names = [...Object.values(kSpeakers), kSystem].join("|");
const kHeading = new RegExp(`^## (${names})$`, "m");
const escaped = (text: string): string => text.replace(new RegExp(`^(\\\\*## (?:${names}))$`, "gm"), "\\$1");
const plain = (text: string): string => text.replace(new RegExp(`^\\\\(\\\\*## (?:${names}))$`, "gm"), "$1");

const fencedCall = ({ function: called }: ToolCall): string =>
  `\`\`\`json\n${JSON.stringify({ call: called.name, arguments: called.arguments }, null, 2)}\n\`\`\``;

// The branch that is shown.
export function exportMarkdown(conversation: Conversation): string {
  const parts = [`# ${conversation.title || texts.chat.untitled}`];
  const system = conversation.settings.system.trim();
  if (system) parts.push(`## ${kSystem}`, escaped(system));
  for (const node of pathOf(conversation)) {
    parts.push(`## ${kSpeakers[node.role]}`);
    const reasoning = node.reasoning?.trim();
    if (reasoning) {
      const quoted = reasoning.split("\n").map((line) => `> ${line}`.trimEnd());
      parts.push(`${kReasoning}\n>\n${quoted.join("\n")}`);
    }
    const content = contentWithFiles(node).trim();
    if (content) parts.push(escaped(content));
    parts.push(...(node.toolCalls ?? []).map(fencedCall));
  }
  return `${parts.join("\n\n")}\n`;
}

// Takes the calls off the end of a text.
function takeCalls(text: string): { text: string; calls: ToolCall[] } {
  const calls: ToolCall[] = [];
  for (;;) {
    const at = text.lastIndexOf('```json\n{\n  "call": ');
    if (at < 0 || !text.endsWith("\n```")) return { text, calls };
    try {
      const { call, arguments: given } = JSON.parse(text.slice(at + 8, -4)) as Record<string, unknown>;
      if (typeof call !== "string" || typeof given !== "string") return { text, calls };
      calls.unshift({ id: newId(), type: "function", function: { name: call, arguments: given } });
    } catch {
      return { text, calls };
    }
    text = text.slice(0, at).trimEnd();
  }
}

// An answer's text: reasoning in quotation, content, calls.
function readAnswer(text: string): Pick<ChatNode, "content" | "reasoning" | "toolCalls"> {
  const answer: Pick<ChatNode, "content" | "reasoning" | "toolCalls"> = { content: "" };
  if (text.startsWith(`${kReasoning}\n`)) {
    const end = /\n(?!>)/.exec(text)?.index ?? text.length;
    const quoted = text
      .slice(kReasoning.length + 1, end)
      .split("\n")
      .slice(1);
    answer.reasoning = quoted.map((line) => line.replace(/^> ?/, "")).join("\n");
    text = text.slice(end).trim();
  }
  const { text: content, calls } = takeCalls(text);
  answer.content = plain(content);
  if (calls.length) answer.toolCalls = calls;
  return answer;
}

// Undefined: no export of `exportMarkdown`.
export function importMarkdown(source: string): Conversation | undefined {
  const text = source.replace(/\r\n/g, "\n");
  const title = /^# (.*)\n/.exec(text);
  const [, ...sections] = text.split(kHeading);
  if (!title || !sections.length) return undefined;
  let conversation = { ...newConversation(defaultSettings()), title: (title[1] ?? "").slice(0, 200) };
  let parent: string | null = null;
  for (let i = 0; i < sections.length; i += 2) {
    const content = (sections[i + 1] ?? "").trim();
    if (sections[i] === kSystem) {
      conversation.settings.system = plain(content);
      continue;
    }
    const node: ChatNode = {
      id: newId(),
      parent,
      role: "user",
      content: plain(content),
      created: conversation.created + i,
    };
    if (sections[i] === kSpeakers.assistant)
      Object.assign(node, { role: "assistant", status: "done" }, readAnswer(content));
    if (sections[i] === kSpeakers.tool) {
      node.role = "tool";
      node.toolCallId = openCalls(pathOf(conversation))[0]?.id; // results stand in their calls' order
    }
    conversation = withNode(conversation, node);
    parent = node.id;
  }
  return conversation;
}
