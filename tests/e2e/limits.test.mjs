// Keys, retries and clients that leave.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

import { Server, collect, eventually, model } from "./server.mjs";

let server;
before(async () => {
  server = await Server.start({ keys: [["free"], ["narrow", "--concurrent", "1"]] });
});
after(() => server.stop());

const messages = [{ role: "user", content: "Hello" }];
const short = { model, messages, max_tokens: 5 };
// Long enough to be under way until its client leaves.
const long = { model, messages, max_tokens: 20_000, ignore_eos: true };

test("a key that is wrong", async () => {
  await assert.rejects(server.openai({ apiKey: "wrong" }).chat.completions.create(short), OpenAI.AuthenticationError);
  await assert.rejects(server.anthropic({ apiKey: "wrong" }).messages.create(short), (error) => {
    assert.ok(error instanceof Anthropic.AuthenticationError);
    assert.equal(error.error.error.type, "authentication_error");
    return true;
  });
});

test("a key that is right, in either client's way", async () => {
  const apiKey = server.key("free");
  assert.equal((await server.openai({ apiKey }).chat.completions.create(short)).object, "chat.completion");
  assert.equal((await server.anthropic({ apiKey }).messages.create(short)).type, "message");
  const bearer = server.anthropic({ apiKey: null, authToken: apiKey });
  assert.equal((await bearer.messages.create(short)).type, "message");
});

for (const [name, ask] of [
  ["OpenAI", (options) => server.openai(options).chat.completions.create(short)],
  ["Anthropic", (options) => server.anthropic(options).messages.create(short)],
])
  test(`${name}'s client tries again as Retry-After says`, async () => {
    const apiKey = server.key("narrow");
    const holder = await server.openai({ apiKey }).chat.completions.create({ ...long, stream: true });
    const first = await holder[Symbol.asyncIterator]().next();
    assert.ok(!first.done);

    const seen = [];
    const observed = async (url, init) => {
      const response = await fetch(url, init);
      seen.push({ status: response.status, retry_after: response.headers.get("retry-after"), at: performance.now() });
      if (response.status === 429) holder.controller.abort();
      return response;
    };
    await ask({ apiKey, maxRetries: 3, fetch: observed });
    assert.equal(seen[0].status, 429);
    assert.equal(seen[0].retry_after, "1");
    assert.ok(seen[1].at - seen[0].at >= 990, "it waited as long as it was told to");
    assert.equal(seen.at(-1).status, 200);
  });

test("without retries a 429 is the client's RateLimitError", async () => {
  const client = server.openai({ apiKey: server.key("narrow") });
  const holder = await client.chat.completions.create({ ...long, stream: true });
  await assert.rejects(client.chat.completions.create(short), OpenAI.RateLimitError);
  holder.controller.abort();
});

for (const [name, leave] of [
  [
    "OpenAI's client leaves a stream",
    async (apiKey) => {
      const stream = await server.openai({ apiKey }).chat.completions.create({ ...long, stream: true });
      let chunks = 0;
      for await (const _ of stream) if (++chunks === 5) break; // the client aborts the request
    },
  ],
  [
    "Anthropic's client leaves a stream",
    async (apiKey) => {
      const { model, messages, max_tokens } = long;
      const text = messages.concat({ role: "assistant", content: "Once upon a" });
      const stream = server.anthropic({ apiKey }).messages.stream({
        model,
        messages: text,
        max_tokens,
        // What is asked for never ends by itself: each item is one more.
        output_config: { format: { type: "json_schema", schema: { type: "array", items: {}, minItems: 1000 } } },
      });
      stream.on("text", () => stream.abort());
      await assert.rejects(stream.done(), Anthropic.APIUserAbortError);
    },
  ],
  [
    "OpenAI's client leaves before the answer",
    async (apiKey) => {
      const controller = new AbortController();
      const asked = server.openai({ apiKey }).chat.completions.create(long, { signal: controller.signal });
      setTimeout(() => controller.abort(), 300);
      await assert.rejects(asked, OpenAI.APIUserAbortError);
    },
  ],
])
  test(`${name}: it is ended, and the server goes on`, async () => {
    const apiKey = server.key("free");
    const before = await server.aborted("free");
    await leave(apiKey);
    await eventually(async () => (await server.aborted("free")) === before + 1);
    assert.equal((await server.openai({ apiKey }).chat.completions.create(short)).object, "chat.completion");
  });

test("a server that is to end lets streams finish", async () => {
  const ending = await Server.start();
  const stream = await ending.openai().chat.completions.create({ ...long, max_tokens: 300, stream: true });
  const chunks = stream[Symbol.asyncIterator]();
  const first = await chunks.next();
  const stopped = ending.stop();
  const all = [first.value, ...(await collect({ [Symbol.asyncIterator]: () => chunks }))];
  assert.equal(all.at(-1).choices[0].finish_reason, "length");
  await stopped;
  await assert.rejects(ending.openai().chat.completions.create(short), OpenAI.APIConnectionError);
});
