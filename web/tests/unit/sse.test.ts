import { describe, expect, it } from "vitest";
import { serverEvents } from "../../src/api/sse";

const streamOf = (chunks: Uint8Array[]): ReadableStream<Uint8Array> =>
  new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
async function read(chunks: Uint8Array[]): Promise<string[]> {
  const all: string[] = [];
  for await (const { data } of serverEvents(streamOf(chunks))) all.push(data);
  return all;
}

describe("serverEvents", () => {
  const text =
    ': keep-alive\n\ndata: {"a":"Grüße 世界 🌊"}\n\ndata: two\r\n\r\ndata: first\ndata: second\n\ndata: [DONE]\n\n';
  const expected = ['{"a":"Grüße 世界 🌊"}', "two", "first\nsecond", "[DONE]"];

  it("gives the same events however the bytes are cut", async () => {
    const whole = bytes(text);
    for (const size of [1, 2, 3, 5, 7, 64, whole.length]) {
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < whole.length; at += size) chunks.push(whole.slice(at, at + size));
      expect(await read(chunks), `chunks of ${size}`).toEqual(expected);
    }
  });
  it("replaces what is no UTF-8", async () => {
    expect(await read([bytes("data: a"), Uint8Array.of(0xc3, 0x28), bytes("b\n\n")])).toEqual(["a\ufffd(b"]);
  });
  it("drops an event that was not finished", async () => {
    expect(await read([bytes("data: whole\n\ndata: half")])).toEqual(["whole"]);
  });
  it("takes a line of a megabyte", async () => {
    const long = "x".repeat(1 << 20);
    expect(await read([bytes(`data: ${long}\n\n`)])).toEqual([long]);
  });
  it("cancels the stream when the reader leaves", async () => {
    let cancelled = false;
    const stream = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(bytes("data: again\n\n")),
      cancel: () => void (cancelled = true),
    });
    for await (const { data } of serverEvents(stream)) if (data) break;
    expect(cancelled).toBe(true);
  });
});
