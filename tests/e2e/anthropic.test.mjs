// The official Anthropic client against a live server.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { Server, calculator, collect, model } from "./server.mjs";

let server;
let client;
before(async () => {
  server = await Server.start();
  client = server.anthropic();
});
after(() => server.stop());

const user = (content) => [{ role: "user", content }];
const sum = { model, max_tokens: 300, messages: user("What is 28 + 34?") };
const thinking = { type: "enabled", budget_tokens: 1024 };

test("an answer without thinking", async () => {
  const answer = await client.messages.create({ ...sum, temperature: 0 });
  assert.equal(answer.type, "message");
  assert.equal(answer.role, "assistant");
  assert.equal(answer.model, model);
  assert.equal(answer.stop_reason, "end_turn");
  assert.deepEqual(
    answer.content.map((block) => block.type),
    ["text"],
  );
  assert.match(answer.content[0].text, /28 \+ 34 = \d+/);
  assert.ok(answer.usage.output_tokens > 0);
});

for (const [how, extra, types] of [
  ["without thinking", {}, ["text"]],
  ["thinking", { thinking, max_tokens: 2000 }, ["thinking", "text"]],
])
  test(`a stream is the whole answer, ${how}`, async () => {
    const asked = { ...sum, seed: 7, temperature: 0.9, ...extra };
    const whole = await client.messages.create(asked);
    assert.deepEqual(
      whole.content.map((block) => block.type),
      types,
    );
    // As it is on the wire, and as the client puts it together.
    const events = await collect(await client.messages.create({ ...asked, stream: true }));
    for (const [index, block] of whole.content.entries()) {
      const deltas = events.filter((event) => event.type === "content_block_delta" && event.index === index);
      assert.equal(
        deltas.map(({ delta }) => delta.thinking ?? delta.text ?? "").join(""),
        block.thinking ?? block.text,
      );
    }
    const gathered = await client.messages.stream(asked).finalMessage();
    const texts = (message) => message.content.map((block) => block.thinking ?? block.text);
    assert.deepEqual(texts(gathered), texts(whole));
    assert.equal(gathered.stop_reason, whole.stop_reason);
    assert.equal(gathered.usage.output_tokens, whole.usage.output_tokens);
    const total = ({ usage }) => usage.input_tokens + (usage.cache_read_input_tokens ?? 0);
    assert.equal(total(gathered), total(whole));
  });

test("thinking that comes back is accepted", async () => {
  const first = await client.messages.create({ ...sum, max_tokens: 2000, thinking });
  const answer = await client.messages.create({
    ...sum,
    max_tokens: 2000,
    thinking,
    messages: [...sum.messages, { role: "assistant", content: first.content }, ...user("What is 3 + 4?")],
  });
  assert.equal(answer.stop_reason, "end_turn");
});

describe("tools", () => {
  const asked = {
    model,
    max_tokens: 300,
    temperature: 0,
    messages: user("What is 28514 + 3480?"),
    tools: [calculator.tool],
  };

  test("a round trip", async () => {
    const first = await client.messages.create(asked);
    assert.equal(first.stop_reason, "tool_use");
    const call = first.content.find((block) => block.type === "tool_use");
    assert.equal(call.name, "calculator");
    assert.deepEqual(call.input, { operation: "add", a: 28514, b: 3480 });
    const messages = [
      ...asked.messages,
      { role: "assistant", content: first.content },
      { role: "user", content: [{ type: "tool_result", tool_use_id: call.id, content: "31994" }] },
    ];
    const second = await client.messages.create({ ...asked, messages });
    assert.equal(second.stop_reason, "end_turn");
    assert.match(second.content[0].text, /31994/);
    assert.ok(second.usage.cache_read_input_tokens > 64, JSON.stringify(second.usage));
  });

  test("streamed arguments", async () => {
    const stream = client.messages.stream(asked);
    const events = await collect(stream);
    const deltas = events.filter((event) => event.delta?.type === "input_json_delta");
    // In how many pieces depends on how quickly they are read: what comes meanwhile is joined.
    assert.ok(deltas.length > 0);
    assert.deepEqual(JSON.parse(deltas.map(({ delta }) => delta.partial_json).join("")), {
      operation: "add",
      a: 28514,
      b: 3480,
    });
    const message = await stream.finalMessage();
    assert.equal(message.stop_reason, "tool_use");
    assert.deepEqual(message.content.at(-1).input, { operation: "add", a: 28514, b: 3480 });
  });

  // It asks for a conversation that the server stores, is told that there are none, and sends the whole from then on.
  test("the client runs the tool in a loop", async () => {
    const run = ({ a, b }) => String(a + b);
    const last = await client.beta.messages.toolRunner({
      ...asked,
      tools: [{ ...calculator.tool, type: "custom", run, parse: (given) => given }],
    });
    assert.match(last.content[0].text, /31994/);
  });

  for (const tool_choice of [{ type: "any" }, { type: "tool", name: "calculator" }])
    test(`tool_choice ${tool_choice.type} makes a call`, async () => {
      const answer = await client.messages.create({ ...asked, messages: user("Hello!"), tool_choice });
      assert.equal(answer.stop_reason, "tool_use");
      assert.equal(typeof answer.content.find((block) => block.type === "tool_use").input, "object");
    });
});

test("JSON that fits its schema", async () => {
  const schema = {
    type: "object",
    properties: { sum: { type: "integer" }, sure: { type: "boolean" } },
    required: ["sum", "sure"],
    additionalProperties: false,
  };
  const answer = await client.messages.create({ ...sum, output_config: { format: { type: "json_schema", schema } } });
  const given = JSON.parse(answer.content[0].text);
  assert.deepEqual(Object.keys(given), ["sum", "sure"]);
  assert.ok(Number.isInteger(given.sum));
  assert.equal(typeof given.sure, "boolean");
});

test("JSON that max_tokens cuts says so", async () => {
  const schema = { type: "array", items: {}, minItems: 1000 };
  const output_config = { format: { type: "json_schema", schema } };
  const answer = await client.messages.create({ ...sum, max_tokens: 12, output_config });
  assert.equal(answer.stop_reason, "max_tokens");
  assert.throws(() => JSON.parse(answer.content[0].text), SyntaxError);
});

test("a stop sequence", async () => {
  const answer = await client.messages.create({ ...sum, temperature: 0, stop_sequences: ["###", " = "] });
  assert.equal(answer.stop_reason, "stop_sequence");
  assert.equal(answer.stop_sequence, " = ");
  assert.equal(answer.content[0].text, "28 + 34");
});

test("max_tokens", async () => {
  const answer = await client.messages.create({ ...sum, max_tokens: 2 });
  assert.equal(answer.stop_reason, "max_tokens");
  assert.equal(answer.usage.output_tokens, 2);
});

test("count_tokens says what the answer's usage says", async () => {
  const { model, messages } = sum;
  const asked = { model, messages, system: "Be brief.", tools: [calculator.tool] };
  const { input_tokens } = await client.messages.countTokens(asked);
  const { usage } = await client.messages.create({ ...asked, max_tokens: 1 });
  assert.equal(input_tokens, usage.input_tokens + (usage.cache_read_input_tokens ?? 0));
});

test("errors have their classes", async () => {
  for (const [asked, type, name] of [
    [{ ...sum, model: "claude-9" }, Anthropic.NotFoundError, "not_found_error"],
    [{ model, max_tokens: 5 }, Anthropic.BadRequestError, "invalid_request_error"],
    [{ ...sum, temperature: 3 }, Anthropic.UnprocessableEntityError, "invalid_request_error"],
    [{ ...sum, temperature: 3, stream: true }, Anthropic.UnprocessableEntityError, "invalid_request_error"],
  ])
    await assert.rejects(client.messages.create(asked), (error) => {
      assert.ok(error instanceof type, `${error.constructor.name}: ${error.message}`);
      assert.equal(error.error.type, "error");
      assert.equal(error.error.error.type, name);
      return true;
    });
});
