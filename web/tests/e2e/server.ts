// The program that FATHOM names, with the small model, as a process of its own.
import { execFile, spawn } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";

const program = process.env["FATHOM"];
export const hasServer = program !== undefined;

const model = process.env["FATHOM_NANO"] ?? fileURLToPath(new URL("../../../models/nano", import.meta.url));

export interface ServerOptions {
  port?: number; // default: any that is free
  keys?: boolean; // wants a key; that of "alice" is there
  limits?: object; // of the configuration
}

export interface RealServer {
  url: string;
  key: string | undefined;
  crash(): Promise<void>; // killed, as by a power cut
  close(): Promise<void>; // asked to end; an error where it does not end well
}

export async function startServer({ port = 0, keys, limits }: ServerOptions = {}): Promise<RealServer> {
  if (!program) throw new Error("FATHOM is not set: it names the fathom program to test");
  const folder = await mkdtemp(join(tmpdir(), "fathom-web-"));
  const config: Record<string, unknown> = {
    port,
    ledger: join(folder, "ledger.db"),
    models: [{ name: "nano", folder: model }],
  };
  let key: string | undefined;
  if (keys) {
    const store = join(folder, "keys.db");
    const added = await promisify(execFile)(program, ["keys", "add", "alice", "--store", store, "--json"]);
    key = (JSON.parse(added.stdout) as { key: string }).key;
    config["keys"] = store;
  }
  if (limits) config["limits"] = limits;
  await writeFile(join(folder, "serve.json"), JSON.stringify(config));

  const child = spawn(program, ["serve", "--config", join(folder, "serve.json")], {
    stdio: ["ignore", "ignore", "pipe"],
  });
  const said: string[] = [];
  const ended = new Promise<number | null>((resolve) => child.on("exit", resolve));
  const url = await new Promise<string>((resolve, reject) => {
    child.on("error", reject);
    void ended.then((code) => reject(new Error(`the server ended with ${code}:\n${said.join("\n")}`)));
    createInterface({ input: child.stderr }).on("line", (line) => {
      said.push(line);
      const ready = /^fathom: ready at (\S+)$/.exec(line);
      if (ready?.[1]) resolve(ready[1]);
    });
  });
  const end = async (signal: NodeJS.Signals): Promise<number | null> => {
    child.kill(signal);
    const code = await ended;
    await rm(folder, { recursive: true });
    return code;
  };
  return {
    url,
    key,
    crash: async () => void (await end("SIGKILL")),
    close: async () => {
      const code = await end("SIGTERM");
      if (code !== 0) throw new Error(`the server ended with ${code}:\n${said.join("\n")}`);
    },
  };
}
