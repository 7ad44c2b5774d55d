import pageFiles from "../runtime/page_files.json" with { type: "json" };

// The library types the global scope as any worker's.
const worker = self as unknown as ServiceWorkerGlobalScope;

/** Holds the page's own files. Weights are not among them: the runtime keeps those itself. */
const CACHE = "tabwright-page";

const scope = worker.registration.scope;
const urls = new Set(pageFiles.map((path) => new URL(path, scope).href));

worker.addEventListener("install", (event) => {
  event.waitUntil(
    caches
      .open(CACHE)
      .then((cache) => cache.addAll([...urls].map((url) => new Request(url, { cache: "reload" }))))
      .then(() => worker.skipWaiting()),
  );
});

worker.addEventListener("activate", (event) => event.waitUntil(worker.clients.claim()));

worker.addEventListener("fetch", (event) => {
  const { origin, pathname } = new URL(event.request.url);
  const url = origin + pathname;
  const name = url === scope ? new URL("index.html", scope).href : url;
  if (event.request.method === "GET" && urls.has(name)) event.respondWith(serve(event.request, name));
});

/** Asks the network first, so that a changed file is seen; answers from the cache without it. */
async function serve(request: Request, name: string): Promise<Response> {
  const cache = await caches.open(CACHE);
  let response: Response | undefined;
  try {
    response = await fetch(request);
    if (response.ok) await cache.put(name, response.clone());
  } catch (error) {
    response = await cache.match(name);
    if (!response) throw error;
  }
  return isolated(response);
}

/** The headers that threads need, also from a server that does not send them. */
function isolated(response: Response): Response {
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  const { status, statusText } = response;
  return new Response(response.body, { status, statusText, headers });
}
