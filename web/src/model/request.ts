// The request that a conversation makes.
import type { ChatBody, Tool, WireMessage } from "../api/types";
import type { ChatNode, ChatSettings } from "./conversation";
import { calculatorTool, parseTools } from "./tools";

// A file goes into the prompt before the question, between marks that it does not contain itself.
export function contentWithFiles(node: Pick<ChatNode, "content" | "attachments">): string {
  const files = (node.attachments ?? []).map(({ name, text }) => {
    let fence = "```";
    while (text.includes(fence)) fence += "`";
    return `File: ${name}\n${fence}\n${text}${text.endsWith("\n") ? "" : "\n"}${fence}\n\n`;
  });
  return files.join("") + node.content;
}

// Reasoning stays out: the format drops it from earlier turns.
export function messagesOf(system: string, path: ChatNode[]): WireMessage[] {
  const messages: WireMessage[] = system.trim() ? [{ role: "system", content: system }] : [];
  for (const node of path) {
    const message: WireMessage = { role: node.role, content: contentWithFiles(node) };
    if (node.role === "assistant" && node.toolCalls?.length) message.tool_calls = node.toolCalls;
    if (node.role === "tool" && node.toolCallId) message.tool_call_id = node.toolCallId;
    messages.push(message);
  }
  return messages;
}

export function toolsOf(settings: ChatSettings): Tool[] {
  const pasted = parseTools(settings.tools).tools ?? [];
  const named = pasted.some((tool) => tool.function.name === calculatorTool.function.name);
  return settings.calculator && !named ? [calculatorTool, ...pasted] : pasted;
}

// `continued`: the last message is an answer that broke off and is to be taken up where it ends.
export function chatBody(settings: ChatSettings, model: string, path: ChatNode[], continued = false): ChatBody {
  const messages = messagesOf(settings.system, path);
  const last = messages[messages.length - 1];
  if (continued && last) last.prefix = true;
  const tools = toolsOf(settings);
  const body: ChatBody = {
    model,
    messages,
    stream: true,
    stream_options: { include_usage: true },
    // The format calls tools only without thinking; an answer that is taken up has its reasoning behind it.
    thinking: { type: settings.thinking && !tools.length && !continued ? "enabled" : "disabled" },
  };
  if (tools.length) body.tools = tools;
  const { stop, ...numbers } = settings.sampling;
  Object.assign(body, Object.fromEntries(Object.entries(numbers).filter(([, value]) => value !== undefined)));
  if (stop?.length) body.stop = stop;
  if (settings.logprobs) Object.assign(body, { logprobs: true, top_logprobs: 5 });
  return body;
}
