import { describe, expect, it } from "vitest";
import * as tree from "../../src/model/conversation";
import { exportJson, importJson, importText } from "../../src/model/transfer";
import { exportMarkdown } from "../../src/model/transfer_markdown";
import { chatBody, contentWithFiles } from "../../src/model/request";

let clock = 1000;
const node = (id: string, parent: string | null, role: tree.ChatNode["role"], content = id): tree.ChatNode => ({
  id,
  parent,
  role,
  content,
  created: ++clock,
  ...(role === "assistant" ? { status: "done" as const } : {}),
});
function sample(): tree.Conversation {
  let conversation = tree.newConversation(tree.defaultSettings());
  conversation = { ...conversation, title: "A title" };
  for (const one of [
    node("q1", null, "user"),
    node("a1", "q1", "assistant"),
    node("a2", "q1", "assistant"),
    node("q2", "a2", "user"),
    node("a3", "q2", "assistant"),
  ])
    conversation = tree.withNode(conversation, one);
  return conversation;
}
const ids = (path: tree.ChatNode[]): string[] => path.map(({ id }) => id);

describe("branches", () => {
  it("shows the newest and can go back", () => {
    const conversation = sample();
    expect(ids(tree.pathOf(conversation))).toEqual(["q1", "a2", "q2", "a3"]);
    const a2 = conversation.nodes["a2"] as tree.ChatNode;
    expect(tree.branchOf(conversation, a2)).toEqual({ index: 1, count: 2 });
    const back = tree.switchBranch(conversation, a2, -1);
    expect(ids(tree.pathOf(back))).toEqual(["q1", "a1"]);
    expect(ids(tree.pathOf(tree.switchBranch(back, back.nodes["a1"] as tree.ChatNode, 1)))).toEqual([
      "q1",
      "a2",
      "q2",
      "a3",
    ]);
    expect(tree.switchBranch(conversation, a2, 1)).toBe(conversation);
  });
  it("keeps an edited question beside the old one", () => {
    const edited = tree.withNode(sample(), node("q1b", null, "user"));
    expect(ids(tree.pathOf(edited))).toEqual(["q1b"]);
    expect(ids(tree.pathTo(edited, "a3"))).toEqual(["q1", "a2", "q2", "a3"]);
  });
  it("ends on circles and on parents that are missing", () => {
    const conversation = sample();
    const circle = { ...conversation, nodes: { x: node("x", "y", "user"), y: node("y", "x", "user") } };
    expect(ids(tree.pathTo(circle, "x"))).toEqual(["y", "x"]);
    expect(tree.pathOf(circle)).toEqual([]);
  });
  it("knows which calls are still open", () => {
    const call = (id: string) => ({ id, type: "function" as const, function: { name: "f", arguments: "{}" } });
    const answer = { ...node("a", "q", "assistant"), toolCalls: [call("1"), call("2")] };
    const result = { ...node("t", "a", "tool"), toolCallId: "1" };
    expect(tree.openCalls([node("q", null, "user"), answer, result]).map(({ id }) => id)).toEqual(["2"]);
    expect(tree.openCalls([answer, result, node("q2", "t", "user")])).toEqual([]);
  });
  it("makes titles of whole characters", () => {
    expect(tree.titleFrom("🌊".repeat(80))).toBe(`${"🌊".repeat(59)}…`);
    expect(tree.titleFrom("\n  first\nsecond")).toBe("first");
  });
});

describe("export and import", () => {
  it("gives back what was exported, under new ids", () => {
    const original = sample();
    const imported = importJson(exportJson([original]));
    expect(imported.problem).toBeUndefined();
    const copy = imported.conversations?.[0] as tree.Conversation;
    expect(copy.id).not.toBe(original.id);
    expect(tree.pathOf(copy).map(({ role, content }) => [role, content])).toEqual(
      tree.pathOf(original).map(({ role, content }) => [role, content]),
    );
    expect(Object.keys(copy.nodes)).toHaveLength(5);
    expect(Object.keys(copy.nodes)).not.toContain("q1");
  });
  it.each([
    ["no JSON", "{"],
    ["something else", '{"a":1}'],
    ["another version", '{"format":"fathom-conversations","version":9,"conversations":[]}'],
    ["a role that is none", exportJson([sample()]).replaceAll('"user"', '"root"')],
    ["a parent that is missing", exportJson([sample()]).replaceAll('"parent": "q1"', '"parent": "gone"')],
  ])("refuses %s", (_, text) => {
    expect(importJson(text).problem).toBeTruthy();
  });
  it("leaves out members that it does not know, and prototypes", () => {
    const text = exportJson([sample()]).replace(
      '"role": "user"',
      '"role": "user", "evil": {}, "__proto__": {"polluted": 1}',
    );
    const copy = importJson(text).conversations?.[0] as tree.Conversation;
    expect(Object.values(copy.nodes).some((one) => "evil" in one || "polluted" in one)).toBe(false);
    expect(({} as Record<string, unknown>)["polluted"]).toBeUndefined();
  });
  it("writes the branch that is shown as Markdown", () => {
    const conversation = sample();
    const a3 = { ...(conversation.nodes["a3"] as tree.ChatNode), reasoning: "line one\nline two", content: "**done**" };
    const text = exportMarkdown(tree.withChangedNode(conversation, a3));
    expect(text).toMatch(/^# A title\n/);
    expect(text).toContain("> line one\n> line two");
    expect(text).toContain("**done**");
    expect(text).not.toContain("a1");
  });
  it("reads its own Markdown, calls, results and headings in texts included", () => {
    const call = (id: string, name: string) => ({
      id,
      type: "function" as const,
      function: { name, arguments: '{"a": "```"}' },
    });
    let conversation = { ...tree.newConversation(tree.defaultSettings()), title: "Calls" };
    conversation.settings.system = "## You\nare asked";
    for (const one of [
      node("q", null, "user", "What?\n\n## Model\n\\## You\n```json\n{}\n```"),
      {
        ...node("a", "q", "assistant", "I look."),
        reasoning: "one\n\n> two",
        toolCalls: [call("1", "x"), call("2", "y")],
      },
      { ...node("t", "a", "tool", "first"), toolCallId: "1" },
      { ...node("u", "t", "tool", "second"), toolCallId: "2" },
      node("b", "u", "assistant", "# So"),
    ])
      conversation = tree.withNode(conversation, one);
    const copy = importText(exportMarkdown(conversation)).conversations?.[0] as tree.Conversation;
    expect(copy.title).toBe("Calls");
    expect(copy.settings.system).toBe("## You\nare asked");
    const path = tree.pathOf(copy);
    const shape = (one: tree.ChatNode) => [one.role, one.content, one.reasoning, one.toolCalls?.map((c) => c.function)];
    expect(path.map(shape)).toEqual(tree.pathOf(conversation).map(shape));
    const ids = path[1]?.toolCalls?.map(({ id }) => id);
    expect([path[2]?.toolCallId, path[3]?.toolCallId]).toEqual(ids);
    expect(exportMarkdown(copy)).toBe(exportMarkdown(conversation));
  });
  it.each(["# A title", "# A title\n\n## Somebody\n\ntext", "## You\n\ntext"])(
    "refuses Markdown of others: %j",
    (text) => {
      expect(importText(text).problem).toBeTruthy();
    },
  );
});

describe("requests", () => {
  it("puts files before the question, within marks that they do not hold", () => {
    const text = contentWithFiles({ content: "what?", attachments: [{ name: "a.md", text: "```js\n1\n```" }] });
    expect(text).toBe("File: a.md\n````\n```js\n1\n```\n````\n\nwhat?");
  });
  it("turns thinking off with tools, and continues by a prefix", () => {
    const settings = { ...tree.defaultSettings(), calculator: true, system: "Be brief." };
    const path = [node("q", null, "user"), node("a", "q", "assistant", "so far")];
    const body = chatBody(settings, "nano", path, true);
    expect(body.thinking.type).toBe("disabled");
    expect(body.messages.map(({ role }) => role)).toEqual(["system", "user", "assistant"]);
    expect(body.messages[2]).toEqual({ role: "assistant", content: "so far", prefix: true });
    expect(chatBody(tree.defaultSettings(), "nano", path.slice(0, 1)).thinking.type).toBe("enabled");
  });
});
