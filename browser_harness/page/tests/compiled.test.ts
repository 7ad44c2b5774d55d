import { afterEach, expect, test, vi } from "vitest";

import { compiledBefore, compilingFrom } from "../runtime/compiled.ts";
import { bytesOf, describeFile } from "./server.ts";

const URL_ = "https://site.test/runtime/x.wasm";
const FILE = describeFile("runtime/x.wasm", bytesOf(40), 16);

function served(type: string, status = 200): ReturnType<typeof vi.fn> {
  const fetching = vi.fn(async () => new Response(bytesOf(40), { status, headers: { "Content-Type": type } }));
  vi.stubGlobal("fetch", fetching);
  return fetching;
}

afterEach(() => vi.unstubAllGlobals());

test("the browser is asked for its own copy of these very bytes, and never the network", async () => {
  const fetching = served("application/wasm");
  const response = await compiledBefore(URL_, FILE);
  expect(new Uint8Array((await response?.arrayBuffer()) as ArrayBuffer)).toEqual(bytesOf(40));
  const [[url, init]] = fetching.mock.calls as [[string, RequestInit]];
  expect([url, init.cache, init.mode]).toEqual([URL_, "only-if-cached", "same-origin"]);
  // As the Subresource Integrity specification writes a digest.
  expect(init.integrity).toBe(`sha256-${Buffer.from(FILE.sha256, "hex").toString("base64")}`);
});

test.each([
  ["text/plain", 200],
  ["application/wasm", 504],
])("a copy that is %s with status %i is none", async (type, status) => {
  served(type, status);
  expect(await compiledBefore(URL_, FILE)).toBeUndefined();
});

test("no copy, one of other bytes, or another site's: none", async () => {
  vi.stubGlobal("fetch", () => Promise.reject(new TypeError("Failed to fetch")));
  expect(await compiledBefore(URL_, FILE)).toBeUndefined();
});

test("what is compiled meanwhile is compiled from the copy, and only meanwhile", async () => {
  const real = WebAssembly.instantiateStreaming;
  const compile = vi.fn(async () => ({}) as WebAssembly.WebAssemblyInstantiatedSource);
  WebAssembly.instantiateStreaming = compile;
  try {
    const copy = new Response();
    const imports = {};
    const failing = compilingFrom(copy, async () => {
      await WebAssembly.instantiateStreaming(new Response(), imports);
      throw new Error("refused");
    });
    await expect(failing).rejects.toThrow("refused");
    expect(compile).toHaveBeenCalledExactlyOnceWith(copy, imports);
    expect(WebAssembly.instantiateStreaming).toBe(compile);
    expect(await compilingFrom(undefined, async () => WebAssembly.instantiateStreaming)).toBe(compile);
  } finally {
    WebAssembly.instantiateStreaming = real;
  }
});
