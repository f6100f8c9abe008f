// The official OpenAI client against a live server.
import assert from "node:assert/strict";
import { after, before, describe, test } from "node:test";

import OpenAI from "openai";

import { Server, calculator, collect, model } from "./server.mjs";

let server;
let client;
before(async () => {
  server = await Server.start();
  client = server.openai();
});
after(() => server.stop());

const user = (content) => [{ role: "user", content }];
const think = { thinking: { type: "enabled" } };
const joined = (chunks, member) => chunks.map((chunk) => chunk.choices[0]?.delta?.[member] ?? "").join("");

const endless = { type: "array", items: {}, minItems: 1000 }; // no answer has room for it

describe("chat completions", () => {
  test("an answer without thinking", async () => {
    const answer = await client.chat.completions.create({ model, messages: user("What is 28 + 34?"), temperature: 0 });
    const [choice] = answer.choices;
    assert.equal(answer.object, "chat.completion");
    assert.equal(answer.model, model);
    assert.match(choice.message.content, /28 \+ 34 = \d+/);
    assert.ok(!choice.message.reasoning_content);
    assert.equal(choice.finish_reason, "stop");
    const { usage } = answer;
    assert.equal(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens);
    assert.equal(usage.prompt_tokens, usage.prompt_cache_hit_tokens + usage.prompt_cache_miss_tokens);
    assert.equal(usage.completion_tokens_details.reasoning_tokens, 0);
  });

  for (const [how, asked] of [
    ["thinking.type", { model, ...think }],
    ["chat_template_kwargs", { model, chat_template_kwargs: { thinking: true } }],
    ["the model's name", { model: "deepseek-reasoner" }],
  ])
    test(`thinking by ${how}`, async () => {
      const answer = await client.chat.completions.create({
        ...asked,
        messages: user("What is 28 + 34?"),
        temperature: 0,
      });
      assert.equal(answer.choices[0].message.content, "28 + 34 = 62.");
      assert.match(answer.choices[0].message.reasoning_content, /62/);
      assert.ok(answer.usage.completion_tokens_details.reasoning_tokens > 10);
    });

  for (const [how, extra] of [
    ["without thinking", {}],
    ["thinking", think],
  ])
    test(`a stream is the whole answer, ${how}`, async () => {
      const asked = { model, messages: user("What is 28 + 34?"), seed: 7, temperature: 0.9, ...extra };
      const whole = await client.chat.completions.create(asked);
      const chunks = await collect(
        await client.chat.completions.create({ ...asked, stream: true, stream_options: { include_usage: true } }),
      );
      const { message, finish_reason } = whole.choices[0];
      assert.equal(joined(chunks, "content"), message.content);
      assert.equal(joined(chunks, "reasoning_content"), message.reasoning_content ?? "");
      const first = chunks[0].choices[0].delta;
      assert.equal(first.role, "assistant");
      assert.ok(first.content || first.reasoning_content, "the first chunk has text");
      assert.equal(chunks.filter((chunk) => chunk.choices[0]?.delta?.role).length, 1);
      const last = chunks.pop();
      assert.deepEqual(last.choices, []);
      assert.equal(last.usage.completion_tokens, whole.usage.completion_tokens);
      assert.equal(last.usage.prompt_tokens, whole.usage.prompt_tokens);
      assert.ok(chunks.every((chunk) => chunk.usage === null && chunk.id === last.id));
      assert.deepEqual(chunks.map((chunk) => chunk.choices[0].finish_reason).filter(Boolean), [finish_reason]);
    });

  test("the client's own gathering of a stream", async () => {
    const asked = { model, messages: user("What is 28 + 34?"), seed: 7 };
    const whole = await client.chat.completions.create(asked);
    const gathered = await client.chat.completions.stream(asked).finalChatCompletion();
    assert.equal(gathered.choices[0].message.content, whole.choices[0].message.content);
  });

  test("reasoning that comes back is accepted", async () => {
    const messages = user("What is 28 + 34?");
    const { message } = (await client.chat.completions.create({ model, messages, temperature: 0, ...think }))
      .choices[0];
    const answer = await client.chat.completions.create({
      model,
      messages: [...messages, message, ...user("What is 3 + 4?")],
      temperature: 0,
      ...think,
    });
    assert.match(answer.choices[0].message.content, /7/);
  });

  test("a tool's round trip", async () => {
    const messages = user("What is 28514 + 3480?");
    const tools = [calculator.function];
    const first = await client.chat.completions.create({ model, messages, tools, temperature: 0 });
    const { message, finish_reason } = first.choices[0];
    assert.equal(finish_reason, "tool_calls");
    assert.equal(message.tool_calls.length, 1);
    const [call] = message.tool_calls;
    assert.equal(call.function.name, "calculator");
    assert.deepEqual(JSON.parse(call.function.arguments), { operation: "add", a: 28514, b: 3480 });
    // The history comes back with its JSON written otherwise: the cached prefix is of use all the same.
    call.function.arguments = JSON.stringify(JSON.parse(call.function.arguments));
    messages.push(message, { role: "tool", tool_call_id: call.id, content: "31994" });
    const second = await client.chat.completions.create({ model, messages, tools, temperature: 0 });
    assert.equal(second.choices[0].finish_reason, "stop");
    assert.match(second.choices[0].message.content, /31994/);
    assert.ok(second.usage.prompt_cache_hit_tokens >= first.usage.prompt_tokens - 64, JSON.stringify(second.usage));
  });

  test("streamed arguments of a tool's call", async () => {
    const asked = { model, messages: user("Multiply 9628 by 1155."), tools: [calculator.function], temperature: 0 };
    const whole = (await client.chat.completions.create(asked)).choices[0].message.tool_calls[0];
    const chunks = await collect(await client.chat.completions.create({ ...asked, stream: true }));
    const deltas = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
    // In how many pieces depends on how quickly they are read: what comes meanwhile is joined.
    assert.ok(deltas.length > 0);
    assert.ok(deltas.every((delta) => delta.index === 0));
    assert.equal(deltas[0].function.name, "calculator");
    assert.ok(deltas[0].id);
    assert.notEqual(deltas[0].id, whole.id);
    assert.equal(deltas.map((delta) => delta.function?.arguments ?? "").join(""), whole.function.arguments);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "tool_calls");
  });

  test("the client runs the tool in a loop", async () => {
    const asked = [];
    const runner = client.chat.completions.runTools({
      model,
      messages: user("What is 28514 + 3480?"),
      temperature: 0,
      stream: true,
      tools: [
        {
          type: "function",
          function: {
            ...calculator.function.function,
            parse: JSON.parse,
            function: (given) => {
              asked.push(given);
              return String(given.a + given.b);
            },
          },
        },
      ],
    });
    assert.match(await runner.finalContent(), /31994/);
    assert.deepEqual(asked, [{ operation: "add", a: 28514, b: 3480 }]);
  });

  for (const [how, tool_choice] of [
    ["required", "required"],
    ["named", { type: "function", function: { name: "calculator" } }],
  ])
    test(`tool_choice ${how} makes a call`, async () => {
      const tools = structuredClone([calculator.function]);
      tools[0].function.strict = true;
      const answer = await client.chat.completions.create({
        model,
        messages: user("Hello!"),
        tools,
        tool_choice,
        seed: 3,
      });
      assert.equal(answer.choices[0].finish_reason, "tool_calls");
      const [call] = answer.choices[0].message.tool_calls;
      const given = JSON.parse(call.function.arguments);
      assert.deepEqual(Object.keys(given), ["operation", "a", "b"]);
      assert.equal(typeof given.a, "number");
    });

  test("tool_choice none makes none", async () => {
    const answer = await client.chat.completions.create({
      model,
      messages: user("What is 28514 + 3480?"),
      tools: [calculator.function],
      tool_choice: "none",
      temperature: 0,
      max_tokens: 60,
    });
    assert.ok(!answer.choices[0].message.tool_calls?.length);
  });

  test("JSON that fits its schema", async () => {
    const schema = {
      type: "object",
      properties: { sum: { type: "integer" }, sure: { type: "boolean" }, kind: { enum: ["small", "large"] } },
      required: ["sum", "sure", "kind"],
      additionalProperties: false,
    };
    const answer = await client.chat.completions.parse({
      model,
      messages: user("What is 28 + 34?"),
      seed: 5,
      max_tokens: 200,
      response_format: { type: "json_schema", json_schema: { name: "sum", strict: true, schema } },
    });
    const { parsed } = answer.choices[0].message;
    assert.deepEqual(Object.keys(parsed), ["sum", "sure", "kind"]);
    assert.ok(Number.isInteger(parsed.sum));
    assert.equal(typeof parsed.sure, "boolean");
    assert.ok(["small", "large"].includes(parsed.kind));
  });

  test("JSON that max_tokens cuts says so", async () => {
    const { choices } = await client.chat.completions.create({
      model,
      messages: user("What is 28 + 34?"),
      max_tokens: 12,
      response_format: { type: "json_schema", json_schema: { name: "many", strict: true, schema: endless } },
    });
    assert.equal(choices[0].finish_reason, "length");
    assert.ok(choices[0].message.content.startsWith("["));
    assert.throws(() => JSON.parse(choices[0].message.content), SyntaxError);
  });

  test("log-probabilities", async () => {
    const asked = { model, messages: user("What is 28 + 34?"), temperature: 0, logprobs: true, top_logprobs: 3 };
    const answer = await client.chat.completions.create(asked);
    const { content } = answer.choices[0].logprobs;
    const bytes = content.flatMap((token) => token.bytes);
    assert.equal(Buffer.from(bytes).toString().startsWith(answer.choices[0].message.content), true);
    for (const token of content) {
      assert.ok(token.logprob <= 0);
      assert.equal(token.top_logprobs.length, 3);
      assert.equal(token.top_logprobs[0].token, token.token, "the best one is taken at temperature 0");
      assert.ok(token.top_logprobs[0].logprob >= token.top_logprobs[1].logprob);
    }
    const chunks = await collect(await client.chat.completions.create({ ...asked, stream: true }));
    const streamed = chunks.flatMap((chunk) => chunk.choices[0].logprobs?.content ?? []);
    assert.deepEqual(
      streamed.map((token) => token.token),
      content.map((token) => token.token),
    );
  });

  test("two choices, and a seed says all", async () => {
    const asked = {
      model,
      messages: user("Tell me something."),
      n: 2,
      seed: 11,
      temperature: 2,
      ignore_eos: true,
      max_tokens: 60,
    };
    const [one, two] = await Promise.all([
      client.chat.completions.create(asked),
      client.chat.completions.create(asked),
    ]);
    const texts = (answer) => answer.choices.map((choice) => [choice.index, choice.message.content]);
    assert.deepEqual(texts(one), texts(two));
    assert.equal(one.choices.length, 2);
    assert.notEqual(one.choices[0].message.content, one.choices[1].message.content);
    const chunks = await collect(await client.chat.completions.create({ ...asked, stream: true }));
    for (const index of [0, 1]) {
      const own = chunks.flatMap((chunk) => chunk.choices).filter((choice) => choice.index === index);
      assert.equal(own.map((choice) => choice.delta.content ?? "").join(""), one.choices[index].message.content);
    }
  });

  test("the same text, whatever else is under way", async () => {
    const asked = Array.from({ length: 12 }, (_, i) => ({
      model,
      messages: user(`What is ${100 + 37 * i} + ${900 - 13 * i}?`),
      seed: i,
      max_tokens: 120,
      ...(i % 2 ? think : {}),
    }));
    const texts = (answer) => [answer.choices[0].message.reasoning_content, answer.choices[0].message.content];
    const alone = [];
    for (const one of asked) alone.push(texts(await client.chat.completions.create(one)));
    const together = await Promise.all(asked.map((one) => client.chat.completions.create(one)));
    assert.deepEqual(together.map(texts), alone);
  });

  test("a message that is begun is continued", async () => {
    const begun = { role: "assistant", content: "28 + 34 =", prefix: true };
    const asked = { model, messages: [...user("What is 28 + 34?"), begun], temperature: 0 };
    for (const baseURL of [`${server.url}/beta`, server.url]) {
      const answer = await server.openai({ baseURL }).chat.completions.create(asked);
      assert.match(answer.choices[0].message.content, /^ \d+/);
    }
  });

  test("stop", async () => {
    const asked = { model, messages: user("What is 28 + 34?"), temperature: 0 };
    const answer = await client.chat.completions.create({ ...asked, stop: [" = "] });
    assert.equal(answer.choices[0].message.content, "28 + 34");
    assert.equal(answer.choices[0].finish_reason, "stop");
    const chunks = await collect(await client.chat.completions.create({ ...asked, stop: " = ", stream: true }));
    assert.equal(joined(chunks, "content"), "28 + 34");
  });

  test("max_tokens ends with length", async () => {
    const answer = await client.chat.completions.create({
      model,
      messages: user("Count."),
      max_completion_tokens: 5,
      ignore_eos: true,
    });
    assert.equal(answer.choices[0].finish_reason, "length");
    assert.equal(answer.usage.completion_tokens, 5);
  });
});

describe("completions", () => {
  test("echo with log-probabilities", async () => {
    const answer = await client.completions.create({
      model,
      prompt: "Once upon a",
      echo: true,
      logprobs: 2,
      max_tokens: 3,
      temperature: 0,
    });
    const [{ text, logprobs }] = answer.choices;
    assert.ok(text.startsWith("Once upon a"));
    const count = answer.usage.prompt_tokens + answer.usage.completion_tokens;
    for (const list of Object.values(logprobs)) assert.equal(list.length, count);
    assert.equal(logprobs.token_logprobs[0], null);
    assert.ok(logprobs.token_logprobs.slice(1).every((value) => value <= 0));
  });

  test("several prompts, texts and tokens", async () => {
    const { tokens } = await (await server.post("/tokenize", { prompt: "The fish", model })).json();
    const asked = { model, max_tokens: 8, seed: 4 };
    const many = await client.completions.create({ ...asked, prompt: ["The fish", "The dog"] });
    assert.deepEqual(
      many.choices.map((choice) => choice.index),
      [0, 1],
    );
    const one = await client.completions.create({ ...asked, prompt: tokens });
    const text = await client.completions.create({ ...asked, prompt: "The fish" });
    assert.equal(one.choices[0].text, text.choices[0].text);
  });

  test("fill in the middle", async () => {
    const answer = await server
      .openai({ baseURL: `${server.url}/beta` })
      .completions.create({ model, prompt: "The fish is", suffix: "in the sea.", max_tokens: 6, ignore_eos: true });
    assert.equal(answer.usage.completion_tokens, 6);
  });

  test("a stream is the whole answer", async () => {
    const asked = { model, prompt: "Once upon a", max_tokens: 30, seed: 9 };
    const whole = await client.completions.create(asked);
    const chunks = await collect(await client.completions.create({ ...asked, stream: true }));
    assert.equal(chunks.map((chunk) => chunk.choices[0].text).join(""), whole.choices[0].text);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "length");
  });
});

describe("responses", () => {
  test("a stream is the whole answer", async () => {
    const asked = { model, input: "What is 28 + 34?", temperature: 0, reasoning: { effort: "none" } };
    const whole = await client.responses.create(asked);
    assert.equal(whole.status, "completed");
    assert.match(whole.output_text, /28 \+ 34 = \d+/);
    const events = await collect(await client.responses.create({ ...asked, stream: true }));
    assert.deepEqual(
      events.map((event) => event.sequence_number),
      events.map((_, i) => i),
    );
    assert.equal(events[0].type, "response.created");
    assert.equal(events.at(-1).type, "response.completed");
    const deltas = events.filter((event) => event.type === "response.output_text.delta");
    assert.equal(deltas.map((event) => event.delta).join(""), whole.output_text);
    const gathered = await client.responses.stream(asked).finalResponse();
    assert.equal(gathered.output_text, whole.output_text);
  });

  test("reasoning", async () => {
    const asked = { model, input: "What is 28 + 34?", temperature: 0, reasoning: { effort: "high" } };
    const whole = await client.responses.create(asked);
    assert.deepEqual(
      whole.output.map((item) => item.type),
      ["reasoning", "message"],
    );
    assert.ok(whole.usage.output_tokens_details.reasoning_tokens > 10);
    const events = await collect(await client.responses.create({ ...asked, stream: true }));
    const deltas = events.filter((event) => event.type === "response.reasoning_text.delta");
    assert.equal(deltas.map((event) => event.delta).join(""), whole.output[0].content[0].text);
  });

  test("a tool's round trip, streamed", async () => {
    const input = user("What is 28514 + 3480?");
    const tools = [calculator.flat];
    const events = await collect(await client.responses.create({ model, input, tools, temperature: 0, stream: true }));
    const [call] = events.at(-1).response.output;
    assert.equal(call.type, "function_call");
    const deltas = events.filter((event) => event.type === "response.function_call_arguments.delta");
    assert.equal(deltas.map((event) => event.delta).join(""), call.arguments);
    assert.deepEqual(JSON.parse(call.arguments), { operation: "add", a: 28514, b: 3480 });
    const answer = await client.responses.create({
      model,
      input: [...input, call, { type: "function_call_output", call_id: call.call_id, output: "31994" }],
      tools,
      temperature: 0,
    });
    assert.match(answer.output_text, /31994/);
  });
});

describe("responses, structured", () => {
  test("JSON that fits its schema", async () => {
    const schema = {
      type: "object",
      properties: { sum: { type: "integer" } },
      required: ["sum"],
      additionalProperties: false,
    };
    const answer = await client.responses.parse({
      model,
      input: "What is 28 + 34?",
      text: { format: { type: "json_schema", name: "sum", strict: true, schema } },
      reasoning: { effort: "none" },
    });
    assert.ok(Number.isInteger(answer.output_parsed.sum));
  });

  test("JSON that max_output_tokens cuts says so", async () => {
    const answer = await client.responses.create({
      model,
      input: "What is 28 + 34?",
      max_output_tokens: 12,
      text: { format: { type: "json_schema", name: "many", strict: true, schema: endless } },
      reasoning: { effort: "none" },
    });
    assert.equal(answer.status, "incomplete");
    assert.equal(answer.incomplete_details.reason, "max_output_tokens");
    assert.throws(() => JSON.parse(answer.output_text), SyntaxError);
  });

  test("what ended early says so", async () => {
    const answer = await client.responses.create({ model, input: "Hello", max_output_tokens: 2 });
    assert.equal(answer.status, "incomplete");
    assert.equal(answer.incomplete_details.reason, "max_output_tokens");
  });

  test("what is not stored here is refused", async () => {
    await assert.rejects(
      client.responses.create({ model, input: "Hello", previous_response_id: "resp_1" }),
      OpenAI.UnprocessableEntityError,
    );
  });
});

describe("models and tokens", () => {
  test("the list of models", async () => {
    const models = await collect(client.models.list());
    assert.ok(models.some((found) => found.id === model && found.root === model));
    assert.ok(models.some((found) => found.id === "deepseek-reasoner" && found.root === model));
  });

  test("tokens and back", async () => {
    const prompt = "Ein 🐟 und 28 + 34 = 62.";
    const { tokens, count } = await (
      await server.post("/tokenize", { model, prompt, add_special_tokens: false })
    ).json();
    assert.equal(tokens.length, count);
    const back = await (await server.post("/detokenize", { model, tokens })).json();
    assert.equal(back.prompt, prompt);
  });
});

describe("errors", () => {
  const messages = user("Hello");
  for (const [what, asked, type, fields] of [
    ["a model that is not there", { model: "gpt-9", messages }, OpenAI.NotFoundError, { code: "model_not_found" }],
    ["no messages", { model }, OpenAI.BadRequestError, {}],
    [
      "a value out of range",
      { model, messages, temperature: 3 },
      OpenAI.UnprocessableEntityError,
      { param: "temperature" },
    ],
    ["the same, streamed", { model, messages, temperature: 3, stream: true }, OpenAI.UnprocessableEntityError, {}],
    [
      "more than the context holds",
      { model, messages: user("fish ".repeat(60_000)) },
      OpenAI.BadRequestError,
      { code: "context_length_exceeded" },
    ],
  ])
    test(what, async () => {
      await assert.rejects(client.chat.completions.create(asked), (error) => {
        assert.ok(error instanceof type, `${error.constructor.name}: ${error.message}`);
        assert.ok(error.message.length > 10);
        for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value);
        assert.match(error.requestID, /^req-/);
        return true;
      });
    });
});
