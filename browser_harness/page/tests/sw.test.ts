import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { BASE } from "./server.ts";

/** A variable, since the types of its global scope are not those of a test. */
const WORKER = "../worker/sw.ts";
const PAGE = `${BASE}index.html`;

interface Fetching {
  readonly request: Request;
  respondWith(response: Promise<Response>): void;
}

let kept: Map<string, Response>;
let full: boolean;
let onFetch: (event: Fetching) => void;

beforeEach(async () => {
  kept = new Map([[PAGE, new Response("old")]]);
  full = false;
  const addEventListener = (type: string, listener: (event: Fetching) => void) => {
    if (type === "fetch") onFetch = listener;
  };
  vi.stubGlobal("self", { registration: { scope: BASE }, addEventListener });
  const cache = {
    match: async (name: string) => kept.get(name)?.clone(),
    put: async (name: string, response: Response) => {
      const body = await response.arrayBuffer();
      if (full) throw new DOMException("full", "QuotaExceededError");
      kept.set(name, new Response(body));
    },
  };
  vi.stubGlobal("caches", { open: async () => cache });
  vi.resetModules();
  await import(/* @vite-ignore */ WORKER);
});

afterEach(() => void vi.unstubAllGlobals());

/** What the page gets where the network answers so. */
function answered(answer: () => Response): Promise<Response> {
  vi.stubGlobal("fetch", async () => answer());
  return new Promise((resolve, reject) => {
    onFetch({ request: new Request(BASE), respondWith: (response) => void response.then(resolve, reject) });
  });
}

const text = async (response: Response | undefined) => await response?.text();

test("a fresh file is served with the headers that threads need, and kept", async () => {
  const response = await answered(() => new Response("new", { headers: { "X-Own": "1" } }));
  expect(response.headers.get("Cross-Origin-Opener-Policy")).toBe("same-origin");
  expect(response.headers.get("X-Own")).toBe("1");
  expect([await text(response), await text(kept.get(PAGE))]).toEqual(["new", "new"]);
});

test("a fresh file is served where there is no room to keep it", async () => {
  full = true;
  expect(await text(await answered(() => new Response("new")))).toBe("new");
  expect(await text(kept.get(PAGE))).toBe("old");
});

test("a redirect is left to the browser", async () => {
  const redirect = { type: "opaqueredirect", status: 0, ok: false, headers: new Headers(), body: null };
  expect(await answered(() => redirect as unknown as Response)).toBe(redirect);
});

test("an answer without a body is one too", async () => {
  expect((await answered(() => new Response(null, { status: 204 }))).status).toBe(204);
});

test.each<[string, () => Response]>([
  [
    "is off",
    () => {
      throw new TypeError("Failed to fetch");
    },
  ],
  ["breaks in the middle", () => new Response(new ReadableStream({ pull: (body) => body.error(new TypeError("network")) }))],
])("where the network %s, what was kept is served", async (_, answer) => {
  expect(await text(await answered(answer))).toBe("old");
});
