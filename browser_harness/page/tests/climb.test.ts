import { expect, test, vi } from "vitest";

import type { Attempting, Opened } from "../runtime/attempt.ts";
import { openAnyWay, type Plan } from "../runtime/climb.ts";
import { type ErrorCode, TabwrightError } from "../runtime/errors.ts";
import type { Manifest } from "../runtime/manifest.ts";
import type { Way } from "../runtime/schema.ts";

vi.mock("../runtime/attempt.ts", () => ({
  loopOf: (entry: { execution_provider: string }, wanted: string) =>
    entry.execution_provider === "webgpu" ? wanted : "plain",
}));
vi.mock("../runtime/open_loop.ts", () => ({
  prefillSizes: (_loop: string, _software: boolean, wanted: number | undefined) => [wanted ?? 256],
}));

vi.mock("../runtime/device.ts", () => ({
  isSoftware: () => false,
  requestAdapter: async () => ({ features: new Set(["subgroups"]) }),
}));

const entry = (provider: string) => ({ execution_provider: provider, features: [] });
const manifest = {
  targets: { f16: entry("webgpu"), f32: entry("webgpu"), cpu: entry("wasm") },
} as unknown as Manifest;
const OTHERS = [
  { target: "f32", gpu: true },
  { target: "cpu", gpu: false },
];

/** Tries every way with `fail`, which gives the code that it fails with, or nothing. */
async function climb(fail: (way: Way) => ErrorCode | undefined, plan: Partial<Plan> = {}) {
  const tried: Way[] = [];
  const notes: string[] = [];
  const common = { manifest, notes } as unknown as Attempting;
  const open = async (way: Way) => {
    tried.push(way);
    const code = fail(way);
    if (code) throw new TabwrightError(code, `${way.target} fails`);
    return {} as Opened;
  };
  const asked = { device_features: "all", loop: "resident" } as const;
  const choice = { target: "f16", others: OTHERS };
  const result = openAnyWay({ choice, asked, ...plan }, common, open);
  return { result, tried, notes };
}

test("what works at once is taken as it was asked for", async () => {
  const { result, notes } = await climb(() => undefined);
  expect(await result).toMatchObject({
    way: { target: "f16", device_features: "all", loop: "resident" },
    fallbacks: [],
  });
  expect(notes).toEqual([]);
});

test("a device that is always wrong is tried in every way, each once, down to the CPU", async () => {
  const { result, tried, notes } = await climb(({ target }) => (target === "cpu" ? undefined : "self-check-failed"));
  const { fallbacks } = await result;
  const gpu = ["needed-features", "short-prefill", "plain-loop"];
  expect(fallbacks.map(({ step }) => step)).toEqual([...gpu, "other-target", ...gpu, "cpu"]);
  expect(fallbacks.at(-1)).toMatchObject({ code: "self-check-failed", reason: "f32 fails", taken: { loop: "plain" } });
  expect(new Set(tried.map((way) => JSON.stringify(way))).size).toBe(tried.length);
  expect(notes).toHaveLength(fallbacks.length);
});

test.each<[ErrorCode, string[]]>([
  // Neither features nor steps make a session that ONNX Runtime refuses.
  ["session-failed", ["plain-loop", "other-target", "plain-loop", "cpu"]],
  ["run-failed", ["plain-loop", "other-target", "plain-loop", "cpu"]],
  ["device-lost", ["other-target", "cpu"]],
  ["adapter-missing", ["other-target", "cpu"]],
])("after %s only what may help is tried", async (code, steps) => {
  const { result } = await climb(({ target }) => (target === "cpu" ? undefined : code));
  expect((await result).fallbacks.map(({ step }) => step)).toEqual(steps);
});

test.each<ErrorCode>(["aborted", "network", "chunk-corrupt", "quota-exceeded", "bad-input"])(
  "%s is nobody's device's fault, and ends the load",
  async (code) => {
    const { result, tried } = await climb(() => code);
    await expect(result).rejects.toMatchObject({ code });
    expect(tried).toHaveLength(1);
  },
);

test("a target that was asked for by name is not left", async () => {
  const { result, tried } = await climb(() => "self-check-failed", { choice: { target: "f32", others: [] } });
  await expect(result).rejects.toMatchObject({
    code: "self-check-failed",
    message: expect.stringMatching(/^f32 fails; before it failed: f32, resident loop: f32 fails; /),
  });
  expect(new Set(tried.map(({ target }) => target))).toEqual(new Set(["f32"]));
});

test("when the CPU is wrong too there is no model", async () => {
  const { result } = await climb(() => "self-check-failed");
  await expect(result).rejects.toMatchObject({ code: "self-check-failed", message: expect.stringMatching(/^cpu fails/) });
});
