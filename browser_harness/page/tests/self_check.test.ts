import { afterEach, expect, test, vi } from "vitest";

import type { Gpu } from "../runtime/device.ts";
import type { Loop, Probed } from "../runtime/loop.ts";
import { Passes } from "../runtime/passes.ts";
import type { SelfCheck, Way } from "../runtime/schema.ts";
import { compareLogits, readSelfCheck } from "../runtime/self_check.ts";
import { FakeDirectory } from "./fake_opfs.ts";

const CHECK: SelfCheck = {
  format: "tabwright-self-check",
  version: 1,
  tokens: [3, 1, 2],
  prompt_tokens: 2,
  targets: {
    t: {
      tolerance: 0.1,
      positions: [
        { position: 1, ids: [2, 0], values: [5, 1], spread: 2 },
        { position: 2, ids: [1], values: [4], spread: 2 },
      ],
    },
  },
};

/** A loop that gives these logits at position 1, twice, and at position 2. */
function loop(...rows: readonly number[][]): Loop {
  return {
    async *probe(prompt: readonly number[], rest: readonly number[]): AsyncGenerator<Probed> {
      expect([prompt, rest]).toEqual([[3, 1], [2]]);
      for (const [at, row] of rows.entries()) {
        yield { position: at < 2 ? 1 : 2, how: `way ${at}`, logits: Float32Array.from(row) };
      }
    },
    reset: () => undefined,
  } as unknown as Loop;
}

const RIGHT = [
  [1, 0, 5],
  [1, 9, 5],
  [0, 4, 0],
];

test("the largest distance is told, in spreads", async () => {
  const found = await compareLogits(CHECK, "t", loop([1, 0, 5], [1, 9, 5.1], [0, 3.96, 0]), undefined);
  expect(found).toEqual({ outcome: "passed", error: expect.closeTo(0.05, 5), tolerance: 0.1, positions: 3 });
});

test.each<[string, number[][], RegExp]>([
  ["one way of prefill", [RIGHT[0] as number[], [1, 0, 5.3], RIGHT[2] as number[]], /position 1 \(way 1\) are 0\.150/],
  ["a single token", [RIGHT[0] as number[], RIGHT[1] as number[], [0, 3, 0]], /position 2 \(way 2\) are 0\.500/],
  ["what is no number", [[1, 0, NaN], RIGHT[1] as number[], RIGHT[2] as number[]], /position 1 \(way 0\) are Infinity/],
  ["a vocabulary too small", [[1, 0], RIGHT[1] as number[], RIGHT[2] as number[]], /are Infinity/],
])("%s that is wrong fails by itself", async (_, rows, message) => {
  await expect(compareLogits(CHECK, "t", loop(...rows), undefined)).rejects.toMatchObject({
    code: "self-check-failed",
    message: expect.stringMatching(message),
  });
});

test("a target without answers is not compared", async () => {
  expect(await compareLogits(CHECK, "u", loop(...RIGHT), undefined)).toBeUndefined();
});

test.each<[string, unknown]>([
  ["no JSON", undefined],
  ["another version", { ...CHECK, version: 2 }],
  ["a token that the model lacks", { ...CHECK, tokens: [3, 1, 4] }],
  ["a prompt longer than the text", { ...CHECK, prompt_tokens: 4 }],
])("%s is refused", async (_, document) => {
  const file = new Blob([document === undefined ? "{" : JSON.stringify(document)]);
  await expect(readSelfCheck(file, "self_check.json", 4)).rejects.toMatchObject({ code: "manifest-invalid" });
});

const WAY: Way = { target: "t", device_features: "needed", loop: "resident" };
const GPU = { adapter: { vendor: "v" }, software: false } as unknown as Gpu;

afterEach(() => vi.unstubAllGlobals());

test.each(["QuotaExceededError", "AbortError"])("a pass that finds no room is forgotten: %s", async (told) => {
  vi.stubGlobal("navigator", { userAgent: "Chrome/156" });
  const disk = new FakeDirectory();
  const passes = new Passes(await disk.openStore(), "a".repeat(64), "1.30.0");
  Object.assign(disk, { quota: 0, told });
  await passes.keep(WAY, GPU);
  expect(await passes.has(WAY, GPU)).toBe(false);
  disk.told = "UnknownError";
  await expect(passes.keep(WAY, GPU)).rejects.toThrow("full");
});

test("a pass holds for the same bundle, way, adapter, runtime and browser only", async () => {
  vi.stubGlobal("navigator", { userAgent: "Chrome/156" });
  const store = await new FakeDirectory().openStore();
  const passes = new Passes(store, "a".repeat(64), "1.30.0");
  expect(await passes.has(WAY, GPU)).toBe(false);
  await passes.keep(WAY, GPU);
  expect(await passes.has(WAY, GPU)).toBe(true);
  expect(await new Passes(store, "a".repeat(64), "1.30.0").has({ ...WAY }, GPU)).toBe(true);
  expect(await new Passes(store, "b".repeat(64), "1.30.0").has(WAY, GPU)).toBe(false);
  expect(await new Passes(store, "a".repeat(64), "1.31.0").has(WAY, GPU)).toBe(false);
  for (const other of [{ loop: "plain" }, { device_features: "all" }, { prefill_chunk: 16 }, { target: "u" }] as const) {
    expect(await passes.has({ ...WAY, ...other }, GPU)).toBe(false);
  }
  expect(await passes.has(WAY, { ...GPU, adapter: { vendor: "w" } } as unknown as Gpu)).toBe(false);
  expect(await passes.has(WAY, undefined)).toBe(false);
  const getHighEntropyValues = async () => ({ fullVersionList: ["156.0.1"] });
  vi.stubGlobal("navigator", { userAgent: "Chrome/156", userAgentData: { getHighEntropyValues } });
  expect(await passes.has(WAY, GPU)).toBe(false);
});
