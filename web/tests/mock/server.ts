// A server that behaves like the real one towards the app, with scripted answers. Serves web/dist under the real policy.
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname, join, normalize } from "node:path";
import { answerFor, type Step, wordsOf } from "./answers";
import { lensAnswer } from "./lens";

export const kPolicy =
  "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; font-src 'self'; " +
  "manifest-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const kTypes: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".webmanifest": "application/manifest+json",
  ".woff2": "font/woff2",
  ".woff": "font/woff",
  ".ttf": "font/ttf",
};

export interface Mock {
  url: string;
  bodies: Record<string, unknown>[]; // of the chat requests, in order
  aborted: number; // answers that the client left
  bytesSent: Map<string, number>; // of the app's files, as they would be sent compressed
  close(): Promise<void>;
}

interface ChatBody {
  messages: { role: string; content: string; prefix?: boolean }[];
  thinking?: { type: string };
  tools?: { function: { name: string } }[];
  logprobs?: boolean;
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}

function json(response: ServerResponse, status: number, value: unknown, headers: Record<string, string> = {}): void {
  response.writeHead(status, { "content-type": "application/json", "x-request-id": "req_mock", ...headers });
  response.end(JSON.stringify(value));
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

async function stream(response: ServerResponse, steps: Step[], body: ChatBody): Promise<void> {
  response.writeHead(200, {
    "content-type": "text/event-stream",
    "cache-control": "no-store",
    "x-request-id": "req_mock",
  });
  response.flushHeaders();
  let open = true;
  response.on("close", () => (open = false));
  const event = (value: object): void => void response.write(`data: ${JSON.stringify(value)}\n\n`);
  const chunk = (delta: object, logprobs: object | null, finish: string | null): object => ({
    id: "chatcmpl-mock",
    object: "chat.completion.chunk",
    choices: [{ index: 0, delta, logprobs, finish_reason: finish }],
  });
  let tokens = 0;
  let reasoning = 0;
  await sleep(25);
  for (const step of steps) {
    if (!open) return;
    if ("wait" in step) {
      if (step.wait) await sleep(step.wait);
    } else if ("raw" in step) {
      response.write(step.raw);
      await sleep(0);
    } else if ("breakOff" in step) {
      response.destroy();
      return;
    } else if ("finish" in step) {
      event(chunk({}, null, step.finish));
    } else {
      ++tokens;
      if ("reasoning_content" in step.delta) ++reasoning;
      event(chunk(step.delta, body.logprobs && step.logprobs ? { content: step.logprobs } : null, null));
    }
  }
  const prompt = body.messages.reduce((sum, message) => sum + wordsOf(message.content).length + 3, 0);
  event({
    choices: [],
    usage: {
      prompt_tokens: prompt,
      completion_tokens: tokens,
      prompt_cache_hit_tokens: Math.floor(prompt / 2),
      completion_tokens_details: { reasoning_tokens: reasoning },
    },
  });
  response.end("data: [DONE]\n\n");
}

let clock = 0;
function metrics(): string {
  ++clock;
  const total = clock * 180 + Math.round(60 * Math.sin(clock / 3));
  return `# HELP fathom_generation_tokens_total Tokens sampled.
# TYPE fathom_generation_tokens_total counter
fathom_generation_tokens_total ${total}
# TYPE fathom_prompt_tokens_total counter
fathom_prompt_tokens_total ${clock * 900}
# TYPE fathom_prompt_tokens_cached_total counter
fathom_prompt_tokens_cached_total ${clock * 610}
# TYPE fathom_num_requests_running gauge
fathom_num_requests_running ${3 + (clock % 4)}
# TYPE fathom_num_requests_waiting gauge
fathom_num_requests_waiting ${clock % 3}
# TYPE fathom_kv_cache_usage_perc gauge
fathom_kv_cache_usage_perc ${(200 + (clock % 30)) / 512}
# TYPE fathom_time_to_first_token_seconds histogram
fathom_time_to_first_token_seconds_bucket{le="0.05"} ${clock * 2}
fathom_time_to_first_token_seconds_bucket{le="0.1"} ${clock * 7}
fathom_time_to_first_token_seconds_bucket{le="0.5"} ${clock * 9}
fathom_time_to_first_token_seconds_bucket{le="+Inf"} ${clock * 10}
fathom_time_to_first_token_seconds_sum ${clock * 0.9}
fathom_time_to_first_token_seconds_count ${clock * 10}
fathom_request_time_per_output_token_seconds_bucket{le="0.005"} ${clock * 40}
fathom_request_time_per_output_token_seconds_bucket{le="0.01"} ${clock * 90}
fathom_request_time_per_output_token_seconds_bucket{le="+Inf"} ${clock * 100}
fathom_request_time_per_output_token_seconds_sum ${clock * 0.7}
fathom_request_time_per_output_token_seconds_count ${clock * 100}
process_resident_memory_bytes 734003200
fathom_odd{label="with \\"quotes\\", commas and } braces"} NaN
`;
}

function usage(by: string): object {
  const days = ["2026-11-22", "2026-11-23", "2026-11-24"];
  const rows = days.flatMap((day, i) =>
    ["alice", "<b>bob</b>\u202e"].map((key, k) => ({
      key,
      day,
      model: "nano",
      requests: 40 + 7 * i + k,
      prompt_tokens: 120_000 * (i + 1),
      cached_tokens: 70_000 * (i + 1),
      completion_tokens: 18_000 + 900 * k,
      cost_usd: 0.0241 * (i + 1) + 0.002 * k,
    })),
  );
  return { by, rows };
}

export async function startMock(options: { key?: string; dist?: string; port?: number } = {}): Promise<Mock> {
  const dist = options.dist ?? new URL("../../dist/", import.meta.url).pathname;
  const mock: Omit<Mock, "url" | "close"> = { bodies: [], aborted: 0, bytesSent: new Map() };

  const file = async (path: string, response: ServerResponse): Promise<void> => {
    const name = normalize(path === "/" ? "/index.html" : path);
    try {
      const bytes = await readFile(join(dist, name));
      const packed = await readFile(`${join(dist, name)}.br`).catch(() => bytes);
      mock.bytesSent.set(name, packed.length);
      response.writeHead(200, {
        "content-type": kTypes[extname(name)] ?? "application/octet-stream",
        "content-security-policy": kPolicy,
        "x-content-type-options": "nosniff",
        "cache-control": name.startsWith("/assets/") ? "public, max-age=31536000, immutable" : "no-cache",
      });
      response.end(bytes);
    } catch {
      json(response, 404, { error: { message: `no such path: ${path}` } });
    }
  };

  const server: Server = createServer((request, response) => {
    void (async () => {
      const url = new URL(request.url ?? "/", "http://mock");
      const api = /^\/(v1|tokenize|metrics)/.test(url.pathname);
      if (api && options.key && request.headers.authorization !== `Bearer ${options.key}`) {
        json(response, 401, { error: { message: "no key, or one that is not known" } });
        return;
      }
      const body = request.method === "POST" ? (JSON.parse(await bodyOf(request)) as Record<string, unknown>) : {};
      switch (url.pathname) {
        case "/v1/models":
          json(response, 200, {
            object: "list",
            data: [
              {
                id: "nano",
                root: "nano",
                object: "model",
                context_length: 32768,
                thinking: true,
                price: { input: 0.28, cached: 0.028, output: 0.42 },
              },
            ],
          });
          return;
        case "/tokenize": {
          const messages = (body["messages"] ?? []) as { content: string }[];
          const count = messages.reduce((sum, message) => sum + wordsOf(message.content).length + 3, 0);
          json(response, 200, { count, max_model_len: 32768, tokens: [] });
          return;
        }
        case "/v1/chat/completions": {
          const chat = body as unknown as ChatBody;
          mock.bodies.push(body);
          const last = chat.messages[chat.messages.length - 1];
          const answer = answerFor({
            last: last?.content ?? "",
            role: last?.role ?? "",
            thinking: chat.thinking?.type === "enabled",
            prefix: last?.prefix ? last.content : undefined,
            tools: (chat.tools ?? []).map((tool) => tool.function.name),
          });
          if (answer.status) {
            json(response, answer.status, { error: { message: answer.error } }, answer.headers);
            return;
          }
          response.on("close", () => {
            if (!response.writableEnded) ++mock.aborted;
          });
          await stream(response, answer.steps, chat);
          return;
        }
        case "/v1/lens":
          json(response, 200, lensAnswer(body));
          return;
        case "/metrics":
          response.writeHead(200, { "content-type": "text/plain; version=0.0.4" });
          response.end(metrics());
          return;
        case "/v1/usage":
          json(response, 200, usage(url.searchParams.get("by") ?? "day"));
          return;
        default:
          await file(decodeURIComponent(url.pathname), response);
      }
    })().catch((error: unknown) => {
      if (!response.headersSent) json(response, 500, { error: { message: String(error) } });
      else response.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(options.port ?? 0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return Object.assign(mock, {
    url: `http://127.0.0.1:${port}`,
    close: () =>
      new Promise<void>((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  });
}
