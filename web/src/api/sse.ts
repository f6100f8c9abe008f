// Server-sent events out of the bytes of a response, as they come.
import { createParser } from "eventsource-parser";

export interface ServerEvent {
  event: string | undefined;
  data: string;
}

// Characters cut by the border of two chunks are put together again; bytes that are no UTF-8 become U+FFFD. Comments (the
// server's keep-alives) are skipped. An event without its closing empty line at the end of the stream is dropped, as the
// standard has it. Leaving the loop cancels the stream.
export async function* serverEvents(stream: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const ready: ServerEvent[] = [];
  const parser = createParser({ onEvent: ({ event, data }) => ready.push({ event, data }) });
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      parser.feed(done ? decoder.decode() : decoder.decode(value, { stream: true }));
      yield* ready.splice(0);
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}
