// Every byte of raw streams, by a parser that takes nothing but what the formats say.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Server, calculator, model } from "./server.mjs";

let server;
before(async () => {
  server = await Server.start();
});
after(() => server.stop());

// The events of a whole body: lines end with \n alone; an event is at most one `event:` line, then one `data:` line, then
// an empty line; between events there may be comments, each with its empty line. Nothing is left over.
function parse_events(bytes) {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  assert.ok(!text.includes("\r") && !text.includes("\0") && !text.startsWith("\ufeff"));
  assert.ok(text.endsWith("\n\n"), "the stream ends with an event's end");
  return text
    .slice(0, -2)
    .split("\n\n")
    .filter((block) => !/^: [^\n]*$/.test(block))
    .map((block) => {
      const match = /^(?:event: ([a-z_.]+)\n)?data: ([^\n]+)$/.exec(block);
      assert.ok(match, `no event: ${JSON.stringify(block)}`);
      return { event: match[1], data: match[2] };
    });
}

test("the parser refuses what is not to the letter", () => {
  const parse = (text) => parse_events(new TextEncoder().encode(text));
  assert.deepEqual(parse(": keep-alive\n\nevent: a\ndata: {}\n\n"), [{ event: "a", data: "{}" }]);
  for (const wrong of [
    "",
    "data: {}",
    "data: {}\n",
    "data: {}\n\n\n",
    "data: {}\r\n\r\n",
    "data:{}\n\n",
    "data: {}\ndata: {}\n\n",
    "data: {}\nevent: a\n\n",
    "\ufeffdata: {}\n\n",
    "{}\n\n",
  ])
    assert.throws(() => parse(wrong), assert.AssertionError, JSON.stringify(wrong));
  assert.throws(() => parse_events(new Uint8Array([...new TextEncoder().encode("data: "), 0xc3, 10, 10])), TypeError);
});

async function events_of(path, body, headers = {}) {
  const response = await server.post(path, { model, stream: true, ...body }, { headers });
  assert.equal(response.status, 200);
  assert.match(response.headers.get("content-type"), /^text\/event-stream/);
  assert.equal(response.headers.get("cache-control"), "no-store");
  return parse_events(new Uint8Array(await response.arrayBuffer()));
}

const messages = [{ role: "user", content: "What is 28514 + 3480?" }];

for (const [what, extra] of [
  ["text", { seed: 3 }],
  ["thinking", { seed: 3, thinking: { type: "enabled" }, max_tokens: 300 }],
  ["a call", { temperature: 0, tools: [calculator.function] }],
  ["characters of several bytes", { seed: 3, temperature: 2, ignore_eos: true, max_tokens: 200 }],
  ["three choices with log-probabilities", { seed: 3, n: 3, logprobs: true, top_logprobs: 2, max_tokens: 40 }],
])
  test(`chat completions: ${what}`, async () => {
    const events = await events_of("/v1/chat/completions", {
      messages,
      stream_options: { include_usage: true },
      ...extra,
    });
    assert.ok(events.every(({ event }) => event === undefined));
    assert.equal(events.pop().data, "[DONE]");
    const chunks = events.map(({ data }) => JSON.parse(data));
    assert.ok(chunks.every((chunk) => chunk.object === "chat.completion.chunk" && chunk.id === chunks[0].id));
    const usage = chunks.pop();
    assert.deepEqual(usage.choices, []);
    assert.ok(usage.usage.completion_tokens > 0);
    const whole = await (await server.post("/v1/chat/completions", { model, messages, ...extra })).json();
    for (const { index, message, finish_reason } of whole.choices) {
      const own = chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.index === index);
      const joined = (member) => own.map(({ delta }) => delta[member] ?? "").join("");
      assert.equal(joined("content"), message.content ?? "");
      assert.equal(joined("reasoning_content"), message.reasoning_content ?? "");
      const given = own.flatMap(({ delta }) => delta.tool_calls ?? []).map((call) => call.function.arguments ?? "");
      assert.equal(given.join(""), (message.tool_calls ?? []).map((call) => call.function.arguments).join(""));
      assert.deepEqual(
        own.map((choice) => choice.finish_reason ?? null),
        [...own.slice(1).map(() => null), finish_reason],
        "one reason to finish, in the last chunk",
      );
    }
  });

test("completions", async () => {
  const asked = { prompt: "Once upon a", max_tokens: 40, seed: 3 };
  const events = await events_of("/v1/completions", asked);
  assert.equal(events.pop().data, "[DONE]");
  const whole = await (await server.post("/v1/completions", { model, ...asked })).json();
  assert.equal(events.map(({ data }) => JSON.parse(data).choices[0].text).join(""), whole.choices[0].text);
});

test("messages: every event has its type's name", async () => {
  const asked = { messages, max_tokens: 200, temperature: 0, tools: [calculator.tool] };
  const events = await events_of("/anthropic/v1/messages", asked, { "anthropic-version": "2023-06-01" });
  for (const { event, data } of events) assert.equal(JSON.parse(data).type, event);
  const types = events.map(({ event }) => event).filter((type) => type !== "ping");
  assert.match(
    types.join(" "),
    /^message_start( content_block_start( content_block_delta)+ content_block_stop)+ message_delta message_stop$/,
  );
});

test("responses: every event has its type's name", async () => {
  const events = await events_of("/v1/responses", { input: "What is 28 + 34?", temperature: 0 });
  for (const { event, data } of events) assert.equal(JSON.parse(data).type, event);
  assert.equal(events.at(-1).event, "response.completed");
});
