// Compresses what was built, once: NAME.gz and NAME.br beside every file that shrinks by it. The server sends them as they are.
import { readdir, readFile, writeFile } from "node:fs/promises";
import { extname, join } from "node:path";
import { brotliCompressSync, constants, gzipSync } from "node:zlib";

const folder = new URL("../dist/", import.meta.url).pathname;
const kShrinks = new Set([".html", ".js", ".css", ".svg", ".webmanifest", ".json", ".ttf"]);

for (const entry of await readdir(folder, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !kShrinks.has(extname(entry.name))) continue;
  const path = join(entry.path ?? entry.parentPath, entry.name);
  const bytes = await readFile(path);
  const gzip = gzipSync(bytes, { level: 9 });
  const brotli = brotliCompressSync(bytes, { params: { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length } });
  if (gzip.length < bytes.length) await writeFile(`${path}.gz`, gzip);
  if (brotli.length < bytes.length) await writeFile(`${path}.br`, brotli);
}
