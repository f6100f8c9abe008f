// Keeps the app itself in the browser, so that it opens at once and when the server is away. Requests to the model, numbers and
// everything else that is not part of the app always go to the server.
const worker = self as unknown as ServiceWorkerGlobalScope;

const version: string = "__SHELL_VERSION__";
const files: string[] = "__SHELL_FILES__" as unknown as string[];
const cacheName = `fathom-${version}`;

worker.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(cacheName)
      .then((cache) => cache.addAll(files.map((file) => new Request(file, { cache: "reload" }))))
      .then(() => worker.skipWaiting()),
  );
});

worker.addEventListener("activate", (event) => {
  event.waitUntil(
    caches
      .keys()
      .then((names) => Promise.all(names.filter((name) => name !== cacheName).map((name) => caches.delete(name))))
      .then(() => worker.clients.claim()),
  );
});

worker.addEventListener("fetch", (event) => {
  const url = new URL(event.request.url);
  if (event.request.method !== "GET" || url.origin !== worker.location.origin) return;
  if (event.request.mode === "navigate" && url.pathname === "/") {
    // The newest page where the server answers, the kept one where it does not.
    event.respondWith(fetch(event.request).catch(async () => (await caches.match("/")) ?? Response.error()));
  } else if (files.includes(url.pathname)) {
    event.respondWith(caches.match(url.pathname).then((kept) => kept ?? fetch(event.request)));
  }
});
