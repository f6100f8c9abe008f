import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { defineConfig, type Plugin } from "vite";

// The service worker is its own entry with a fixed name, because its URL decides its scope. The list of files it keeps is
// written into it once they are known: what a first visit loads, and neither maths nor its fonts.
function appShell(): Plugin {
  return {
    name: "app-shell",
    apply: "build",
    generateBundle(_, bundle) {
      const worker = bundle["sw.js"];
      if (!worker || worker.type !== "chunk") this.error("src/sw.ts was not built as sw.js");
      const shell = Object.keys(bundle).filter((name) => /^assets\/.*\.(js|css)$/.test(name) && !/katex/.test(name));
      const files = ["/", "/manifest.webmanifest", "/icon.svg", ...shell.map((name) => `/${name}`)].sort();
      const page = readFileSync("index.html", "utf8");
      const version = createHash("sha256")
        .update(page + files.join("\n"))
        .digest("hex")
        .slice(0, 12);
      worker.code = worker.code
        .replace(/["'`]__SHELL_FILES__["'`]/, JSON.stringify(files))
        .replace(/["'`]__SHELL_VERSION__["'`]/, JSON.stringify(version));
    },
  };
}

// KaTeX names each font in three formats; every browser that the app is built for takes the first.
function woff2Only(): Plugin {
  return {
    name: "woff2-only",
    enforce: "pre",
    transform(code, id) {
      if (!/katex.*\.css$/.test(id)) return null;
      return { code: code.replace(/,url\([^)]*\.(?:woff|ttf)\) format\("[a-z]+"\)/g, ""), map: null };
    },
  };
}

const server = process.env["FATHOM_URL"] ?? "http://127.0.0.1:8080";

export default defineConfig({
  plugins: [woff2Only(), appShell()],
  esbuild: { jsx: "automatic", jsxImportSource: "preact" },
  build: {
    target: ["chrome111", "firefox115", "safari16.4"],
    assetsInlineLimit: 0, // the content security policy has no font-src data:
    modulePreload: { polyfill: false },
    rollupOptions: {
      input: { index: "index.html", sw: "src/sw.ts" },
      output: {
        entryFileNames: (chunk) => (chunk.name === "sw" ? "sw.js" : "assets/[name]-[hash].js"),
        chunkFileNames: "assets/[name]-[hash].js",
        assetFileNames: "assets/[name]-[hash][extname]",
      },
    },
  },
  server: { proxy: Object.fromEntries(["/v1", "/tokenize", "/metrics", "/health"].map((path) => [path, server])) },
});
