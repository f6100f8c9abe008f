// A live server for the tests of one file: the program that $FATHOM names, with the small model, on a free port.
import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

import Anthropic from "@anthropic-ai/sdk";
import OpenAI from "openai";

const program = process.env.FATHOM;
if (!program) throw new Error("FATHOM is not set: it names the fathom program to test");

export const model = "nano";
const folder = process.env.FATHOM_NANO ?? fileURLToPath(new URL("../../models/nano", import.meta.url));

// What the command printed; an error with what it said where it fails.
export async function fathom(...args) {
  return (await promisify(execFile)(program, args)).stdout;
}

export class Server {
  // keys: those of `fathom keys add`, each [name, ...options]. `key(name)` is what was made.
  // one_at_a_time: a request that comes while one is answered waits, and its client is told each second that it does.
  static async start({ keys = [], one_at_a_time = false } = {}) {
    const server = new Server();
    server.folder = await mkdtemp(join(tmpdir(), "fathom-e2e-"));
    server.ledger = join(server.folder, "ledger.db");
    const args = ["serve", "--port", "0", "--ledger", server.ledger, "--files", join(server.folder, "files")];
    if (one_at_a_time) {
      const config = join(server.folder, "serve.json");
      const models = [{ name: model, folder, max_running: 1 }];
      await writeFile(config, JSON.stringify({ keep_alive_seconds: 1, models }));
      args.push("--config", config);
    } else args.push("--model", folder);
    if (keys.length) {
      const store = join(server.folder, "keys.db");
      args.push("--keys", store);
      for (const [name, ...options] of keys) {
        const made = JSON.parse(await fathom("keys", "add", name, "--store", store, "--json", ...options));
        server.#keys.set(name, made.key);
      }
    }
    server.#args = args;
    await server.#begin();
    return server;
  }

  // Ends it without a word, and starts another in its place, on its files. It is found at another `url`.
  async crash() {
    this.#child.kill("SIGKILL");
    await this.#end;
    await this.#begin();
  }

  key(name) {
    return this.#keys.get(name);
  }

  // Clients do not repeat what fails, unless a test is about that: a fault is not to be hidden by a second try.
  openai(options = {}) {
    return new OpenAI({ baseURL: `${this.url}/v1`, apiKey: "none", maxRetries: 0, timeout: 60_000, ...options });
  }
  anthropic(options = {}) {
    return new Anthropic({
      baseURL: `${this.url}/anthropic`,
      apiKey: "none",
      maxRetries: 0,
      timeout: 60_000,
      ...options,
    });
  }

  post(path, body, options = {}) {
    return fetch(this.url + path, { method: "POST", body: JSON.stringify(body), ...options });
  }

  // How many requests of a key its clients left, says the ledger.
  async aborted(key) {
    const { usage } = JSON.parse(await fathom("usage", "--ledger", this.ledger, "--json"));
    return usage.find((row) => row.key === key)?.aborted ?? 0;
  }

  // Asks it to end, as a service manager does, and waits: what is under way goes on. Anything but a clean end is an error.
  async stop() {
    this.#child.kill("SIGTERM");
    const { code, signal } = await this.#end;
    await rm(this.folder, { recursive: true });
    if (code !== 0) throw new Error(`the server ended with ${code ?? signal}:\n${this.#said.join("\n")}`);
  }

  async #begin() {
    this.#child = spawn(program, this.#args, { stdio: ["ignore", "ignore", "pipe"] });
    this.url = await this.#ready();
  }

  #args;
  #keys = new Map();
  #said = [];
  #child;
  #end;

  #ready() {
    return new Promise((resolve, reject) => {
      this.#end = new Promise((ended) => this.#child.on("exit", (code, signal) => ended({ code, signal })));
      this.#child.on("error", reject);
      this.#end.then(({ code }) => reject(new Error(`the server ended with ${code}:\n${this.#said.join("\n")}`)));
      createInterface({ input: this.#child.stderr }).on("line", (line) => {
        this.#said.push(line);
        const ready = /^fathom: ready at (\S+)$/.exec(line);
        if (ready) resolve(ready[1]);
      });
    });
  }
}

// The tool that the small model knows.
const parameters = {
  type: "object",
  properties: {
    operation: { type: "string", enum: ["add", "subtract", "multiply", "divide"] },
    a: { type: "number" },
    b: { type: "number" },
  },
  required: ["operation", "a", "b"],
};
const name = "calculator";
const description = "Exact arithmetic with two numbers.";
export const calculator = {
  function: { type: "function", function: { name, description, parameters } }, // chat completions
  flat: { type: "function", name, description, parameters, strict: true }, // responses
  tool: { name, description, input_schema: parameters }, // messages
};

export async function collect(stream) {
  const all = [];
  for await (const item of stream) all.push(item);
  return all;
}

// Until `condition` gives something true; the test's time limit ends what never comes.
export async function eventually(condition) {
  for (;;) {
    const found = await condition();
    if (found) return found;
    await new Promise((done) => setTimeout(done, 50));
  }
}
