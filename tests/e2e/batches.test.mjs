// Files and batches, by OpenAI's client.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";

import OpenAI, { toFile } from "openai";

import { Server, collect, eventually, fathom, model } from "./server.mjs";

let server, client, other;
before(async () => {
  server = await Server.start({ keys: [["batcher"], ["other"], ["poor", "--budget", "0"]] });
  client = server.openai({ apiKey: server.key("batcher") });
  other = server.openai({ apiKey: server.key("other") });
});
after(() => server.stop());

const url = "/v1/chat/completions";
const question = (i) => [{ role: "user", content: `What is ${100 + i} + ${200 + i}?` }];
const line = (custom_id, body, more = {}) => JSON.stringify({ custom_id, method: "POST", url, body, ...more });
const lines = (count, body = {}) =>
  Array.from({ length: count }, (_, i) => line(`q${i}`, { model, messages: question(i), max_tokens: 60, ...body }));
const upload = (text, who = client) =>
  toFile(Buffer.from(text), "questions.jsonl").then((file) => who.files.create({ file, purpose: "batch" }));
const begin = async (text, options = {}) =>
  client.batches.create({
    input_file_id: (await upload(text)).id,
    endpoint: url,
    completion_window: "24h",
    ...options,
  });
const over = (id, who = client) =>
  eventually(async () => {
    const batch = await who.batches.retrieve(id);
    return ["completed", "failed", "expired", "cancelled"].includes(batch.status) && batch;
  });
const results = async (id, who = client) =>
  new Map(
    (await (await who.files.content(id)).text())
      .trimEnd()
      .split("\n")
      .map((text) => {
        const result = JSON.parse(text);
        return [result.custom_id, result];
      }),
  );
const status = (expected) => (error) => {
  assert.ok(error instanceof OpenAI.APIError, error);
  assert.equal(error.status, expected, error.message);
  return true;
};

test("a file goes up, is listed, comes down and goes away", async () => {
  const text = '{"a": 1}\n--boundary\r\n"é\u{1f600}"\n';
  const file = await upload(text);
  assert.match(file.id, /^file-/);
  assert.deepEqual(
    [file.object, file.filename, file.purpose, file.bytes],
    ["file", "questions.jsonl", "batch", Buffer.byteLength(text)],
  );
  assert.equal(await (await client.files.content(file.id)).text(), text);
  assert.deepEqual(await client.files.retrieve(file.id), file);
  const second = await upload("x");
  const page = await client.files.list({ limit: 1 });
  assert.equal(page.data[0].id, second.id, "the newest first");
  const ids = (await collect(await client.files.list({ limit: 1 }))).map((f) => f.id);
  assert.deepEqual(ids.slice(0, 2), [second.id, file.id], "page by page");
  assert.equal((await client.files.list({ order: "asc", limit: 1 })).data[0].id, ids.at(-1));
  assert.deepEqual(await client.files.delete(file.id), { id: file.id, object: "file", deleted: true });
  await assert.rejects(client.files.retrieve(file.id), status(404));
  await assert.rejects(client.files.content(file.id), status(404));
  await client.files.delete(second.id);
});

test("what is no upload is refused", async () => {
  const file = await toFile(Buffer.from("x"), "x.jsonl");
  await assert.rejects(client.files.create({ file, purpose: "fine-tune" }), status(422));
  await assert.rejects(
    client.files.create({ file: await toFile(Buffer.from(""), "x"), purpose: "batch" }),
    status(422),
  );
  await assert.rejects(client.post("/files", { body: { file: "x", purpose: "batch" } }), status(400));
  const headers = {
    authorization: `Bearer ${server.key("batcher")}`,
    "content-type": "multipart/form-data; boundary=b",
  };
  for (const body of [
    "",
    "--b",
    "--b\r\n\r\n--b--",
    "--b\r\nContent-Disposition: x\r\n\r\ny\r\n--b--",
    "--b--",
    "--b\r\n".repeat(1000),
  ])
    assert.match(String((await fetch(`${server.url}/v1/files`, { method: "POST", headers, body })).status), /^4/, body);
});

test("a batch is answered, each line as it would be alone", async () => {
  const bad = line("bad", { model, messages: question(1), temperature: 9 });
  const batch = await begin([...lines(20, { temperature: 0 }), bad].join("\n"), { metadata: { of: "a test" } });
  assert.deepEqual(
    [batch.object, batch.status, batch.endpoint, batch.completion_window],
    ["batch", "validating", url, "24h"],
  );
  assert.deepEqual(batch.metadata, { of: "a test" });
  assert.equal(batch.expires_at - batch.created_at, 24 * 60 * 60);
  const done = await over(batch.id);
  assert.equal(done.status, "completed");
  assert.deepEqual(done.request_counts, { total: 21, completed: 20, failed: 1 });
  assert.ok(done.created_at <= done.in_progress_at && done.in_progress_at <= done.completed_at);

  const answered = await results(done.output_file_id);
  assert.equal(answered.size, 20);
  for (const i of [0, 7, 19]) {
    const { response, error } = answered.get(`q${i}`);
    assert.equal(error, null);
    assert.equal(response.status_code, 200);
    const alone = await client.chat.completions.create({
      model,
      messages: question(i),
      max_tokens: 60,
      temperature: 0,
    });
    assert.equal(response.body.choices[0].message.content, alone.choices[0].message.content);
    assert.equal(response.body.usage.total_tokens, alone.usage.total_tokens);
  }
  const refused = await results(done.error_file_id);
  assert.equal(refused.get("bad").response.status_code, 422);
  assert.equal(refused.get("bad").response.body.error.param, "temperature");

  const listed = await client.batches.list();
  assert.equal(listed.data[0].id, batch.id);
  assert.equal(listed.data[0].status, "completed");
  const outputs = (await client.files.list({ purpose: "batch_output" })).data;
  assert.deepEqual(outputs.map((file) => file.id).sort(), [done.output_file_id, done.error_file_id].sort());
  await eventually(async () => {
    const { usage } = JSON.parse(await fathom("usage", "--ledger", server.ledger, "--json"));
    const { requests, failed, price_usd } = usage.find(({ key }) => key === "batcher");
    return requests >= 24 && failed >= 1 && price_usd > 0; // the 21 lines among them
  });
});

test("others see nothing of it", async () => {
  const file = await upload(lines(1).join("\n"));
  const batch = await client.batches.create({ input_file_id: file.id, endpoint: url, completion_window: "24h" });
  await over(batch.id);
  await assert.rejects(other.files.retrieve(file.id), status(404));
  await assert.rejects(other.files.content(file.id), status(404));
  await assert.rejects(other.files.delete(file.id), status(404));
  await assert.rejects(other.batches.retrieve(batch.id), status(404));
  await assert.rejects(other.batches.cancel(batch.id), status(404));
  await assert.rejects(
    other.batches.create({ input_file_id: file.id, endpoint: url, completion_window: "24h" }),
    status(404),
  );
  assert.deepEqual((await other.files.list()).data, []);
  assert.deepEqual((await other.batches.list()).data, []);
});

test("an input that is none fails with its lines", async () => {
  const text = [
    "{",
    line("a", { model, messages: question(1) }),
    line("a", { model }),
    line("b", { model }, { url: "/v1/completions" }),
    line("c", { model: "gpt" }),
  ];
  const failed = await over((await begin(text.join("\n"))).id);
  assert.equal(failed.status, "failed");
  assert.deepEqual(
    failed.errors.data.map((e) => e.line),
    [1, 3, 4, 5],
  );
  assert.match(failed.errors.data[1].message, /custom_id "a": line 2 has it too/);
  assert.ok(failed.failed_at);
  assert.equal(failed.output_file_id, null);
  const unknown = await over((await begin(line("a", { model: "gpt", messages: question(1) }))).id);
  assert.equal(unknown.errors.data[0].code, "model_not_found");
  for (const wrong of [{ endpoint: "/v1/embeddings" }, { completion_window: "1h" }, { metadata: { a: 1 } }])
    await assert.rejects(begin(lines(1).join("\n"), wrong), status(422));
  await assert.rejects(
    client.batches.create({ input_file_id: "file-none", endpoint: url, completion_window: "24h" }),
    status(404),
  );
});

test("one without money ends with its lines refused", async () => {
  const poor = server.openai({ apiKey: server.key("poor") });
  const file = await upload(lines(3).join("\n"), poor);
  const batch = await poor.batches.create({ input_file_id: file.id, endpoint: url, completion_window: "24h" });
  const done = await over(batch.id, poor);
  assert.deepEqual(done.request_counts, { total: 3, completed: 0, failed: 3 });
  const refused = await results(done.error_file_id, poor);
  assert.equal(refused.get("q0").response, null);
  assert.equal(refused.get("q0").error.code, "insufficient_quota");
});

// Far more than is waited for.
const long = { max_tokens: 4000, ignore_eos: true };

test("it can be cancelled, under way and before it began", async () => {
  const running = await begin(lines(2000, long).join("\n"));
  await eventually(async () => (await client.batches.retrieve(running.id)).status === "in_progress");
  await assert.rejects(client.files.delete(running.input_file_id), status(409));
  const second = await begin(lines(2000, long).join("\n"));
  const waiting = await begin(lines(5).join("\n"));
  for (const { id } of [waiting, second, running]) assert.equal((await client.batches.cancel(id)).status, "cancelling");
  for (const { id } of [waiting, second, running]) {
    const cancelled = await over(id);
    assert.equal(cancelled.status, "cancelled");
    assert.ok(cancelled.cancelling_at <= cancelled.cancelled_at);
    await assert.rejects(client.batches.cancel(id), status(409));
  }
  await client.files.delete(running.input_file_id);
});

test("those who wait for an answer are served beside it", async () => {
  const batch = await begin(lines(500, long).join("\n"));
  await eventually(async () => (await client.batches.retrieve(batch.id)).status === "in_progress");
  const answer = await other.chat.completions.create({ model, messages: question(3), max_tokens: 60 });
  assert.equal(answer.choices.length, 1);
  assert.equal((await client.batches.retrieve(batch.id)).request_counts.completed < 500, true);
  await client.batches.cancel(batch.id);
  await over(batch.id);
});

test("after a crash it goes on where it was, to the same answers", async () => {
  const text = lines(60, { temperature: 0.8, max_tokens: 300, ignore_eos: true }).join("\n");
  const whole = await over((await begin(text)).id);
  const batch = await begin(text);
  await eventually(async () => (await client.batches.retrieve(batch.id)).request_counts.completed >= 5);
  await server.crash();
  client = server.openai({ apiKey: server.key("batcher") });
  const done = await over(batch.id);
  assert.equal(done.status, "completed");
  assert.deepEqual(done.request_counts, { total: 60, completed: 60, failed: 0 });
  const answers = async ({ output_file_id }) =>
    [...(await results(output_file_id))]
      .map(([id, { response }]) => [id, response.body.choices[0].message.content])
      .sort();
  assert.deepEqual(await answers(done), await answers(whole));
});
