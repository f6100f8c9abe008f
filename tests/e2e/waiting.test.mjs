// What clients are sent while they wait does not disturb them.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import { Server, collect, model } from "./server.mjs";

let server;
before(async () => {
  server = await Server.start({ one_at_a_time: true });
});
after(() => server.stop());

const messages = [{ role: "user", content: "Hello" }];
const short = { model, messages, max_tokens: 5, seed: 1, temperature: 0 };

for (const [what, filler, ask, text] of [
  [
    "OpenAI's client, a whole answer",
    /^\n+\{/,
    (options) => server.openai(options).chat.completions.create(short),
    (answer) => answer.choices[0].message.content,
  ],
  [
    "OpenAI's client, a stream",
    /^(: keep-alive\n\n)+data: /,
    async (options) => collect(await server.openai(options).chat.completions.create({ ...short, stream: true })),
    (chunks) => chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""),
  ],
  [
    "Anthropic's client, a whole answer",
    /^\n+\{/,
    (options) => server.anthropic(options).messages.create(short),
    (answer) => answer.content[0].text,
  ],
  [
    "Anthropic's client, a stream",
    /: keep-alive\n\n|event: ping\n/,
    (options) => server.anthropic(options).messages.stream(short).finalMessage(),
    (answer) => answer.content[0].text,
  ],
])
  test(what, async () => {
    const alone = text(await ask({}));
    const holder = await server
      .openai()
      .chat.completions.create({ model, messages, max_tokens: 20_000, ignore_eos: true, stream: true });
    await holder[Symbol.asyncIterator]().next();
    let raw;
    const observed = async (url, init) => {
      const response = await fetch(url, init);
      raw = response.clone().text();
      return response;
    };
    const asked = ask({ fetch: observed });
    setTimeout(() => holder.controller.abort(), 1600);
    assert.equal(text(await asked), alone);
    assert.match(await raw, filler);
  });
