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
  let response: Response;
  try {
    const answer = await fetch(request);
    // A redirect, say: nobody but the browser may look into it.
    if (answer.status === 0) return answer;
    // To its end, since a connection that breaks in the middle is no answer either.
    const body = await answer.arrayBuffer();
    // Some statuses may have none.
    response = isolated(answer, body.byteLength > 0 ? body : null);
  } catch (error) {
    const kept = await cache.match(name);
    if (!kept) throw error;
    return isolated(kept, kept.body);
  }
  // Where the site may store no more, the page works as long as the network does.
  if (response.ok) await cache.put(name, response.clone()).catch(() => undefined);
  return response;
}

/** The headers that threads need, also from a server that does not send them. */
function isolated(response: Response, body: BodyInit | null): Response {
  const headers = new Headers(response.headers);
  headers.set("Cross-Origin-Opener-Policy", "same-origin");
  headers.set("Cross-Origin-Embedder-Policy", "require-corp");
  headers.set("Cross-Origin-Resource-Policy", "same-origin");
  const { status, statusText } = response;
  return new Response(body, { status, statusText, headers });
}
