import { afterEach, describe, expect, test, vi } from "vitest";

import { ort, prepareOrt, usableThreads } from "../runtime/ort.ts";

afterEach(() => void vi.unstubAllGlobals());

test("ONNX Runtime is pointed at its files once, and has one thread", () => {
  const [module, wasm] = [new Blob(["export default 1"]), new Blob([])];
  prepareOrt(module, wasm);
  const { wasmPaths, numThreads } = ort.env.wasm;
  expect(wasmPaths).toEqual({ mjs: expect.stringMatching(/^blob:/), wasm: expect.stringMatching(/^blob:/) });
  expect(numThreads).toBe(1);
  // It may have started in this very load, for a way that failed: it would not look again.
  prepareOrt(new Blob(["export default 2"]), wasm);
  expect(ort.env.wasm.wasmPaths).toBe(wasmPaths);
});

describe("threads", () => {
  const ask = (wanted: number | undefined, gpu: boolean, isolated = true, cores = 16) => {
    vi.stubGlobal("crossOriginIsolated", isolated);
    vi.stubGlobal("navigator", { hardwareConcurrency: cores });
    const notes: string[] = [];
    return { threads: usableThreads(wanted, gpu, notes), notes };
  };

  test("are as many as are wanted, or half the cores up to four", () => {
    expect(ask(6, false)).toEqual({ threads: 6, notes: [] });
    expect([16, 5, 2, 1].map((cores) => ask(undefined, false, true, cores).threads)).toEqual([4, 3, 1, 1]);
  });

  test("are one where the page is not isolated, which is noted where more were wanted", () => {
    expect(ask(4, false, false)).toEqual({ threads: 1, notes: [expect.stringContaining("not cross-origin isolated")] });
    expect(ask(1, false, false)).toEqual({ threads: 1, notes: [] });
  });

  test("are one beside a GPU, isolated or not", () => {
    expect([ask(4, true), ask(undefined, true), ask(4, true, false)]).toEqual(new Array(3).fill({ threads: 1, notes: [] }));
  });

  test("must be a number, beside a GPU too", () => {
    for (const gpu of [false, true]) {
      for (const wanted of [0, 1.5, NaN]) expect(() => ask(wanted, gpu)).toThrow(expect.objectContaining({ code: "bad-input" }));
    }
  });
});
