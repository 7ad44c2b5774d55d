import { expect, test } from "vitest";

import type { Manifest } from "../runtime/manifest.ts";
import { chooseTarget, type Means } from "../runtime/target.ts";

const GIB = 2 ** 30;
const entry = { graph: "g", features: [], limits: {}, session_config: {}, activation_dtype: "float32", states: [] };

function manifest(names: readonly string[]): Manifest {
  const all: Record<string, unknown> = {
    "webgpu-q4": { ...entry, execution_provider: "webgpu", weights: "q4", limits: { maxBufferSize: 1024 } },
    "webgpu-q4f16": {
      ...entry,
      execution_provider: "webgpu",
      weights: "q4",
      activation_dtype: "float16",
      features: ["shader-f16"],
    },
    "webgpu-q8": { ...entry, execution_provider: "webgpu", weights: "q8" },
    "wasm-q4": { ...entry, execution_provider: "wasm", weights: "q4" },
  };
  return {
    files: [
      { path: "four", size: 4 },
      { path: "eight", size: 8 },
    ],
    model: { context_length: 4096 },
    weights: { q4: { shards: ["four"] }, q8: { shards: ["eight"] } },
    targets: Object.fromEntries(names.map((name) => [name, all[name]])),
  } as unknown as Manifest;
}

const ALL = manifest(["wasm-q4", "webgpu-q8", "webgpu-q4", "webgpu-q4f16"]);

function adapter(options: { software?: boolean; f16?: boolean; buffer?: number }): GPUAdapter {
  return {
    info: { vendor: "v", architecture: "", device: "", description: "", isFallbackAdapter: options.software ?? false },
    features: new Set(options.f16 ? ["shader-f16"] : []),
    limits: { maxBufferSize: options.buffer ?? 4096 },
  } as unknown as GPUAdapter;
}

/** What a page sees of a device with `adapter`. */
function device(adapter: GPUAdapter | undefined, memoryBytes?: number, storageBytes?: number): Means {
  return { adapter, memoryBytes, storageBytes };
}

test.each<[string, Manifest, GPUAdapter | undefined, string, RegExp]>([
  ["a GPU with f16", ALL, adapter({ f16: true }), "webgpu-q4f16", /^runs on the GPU$/],
  ["a GPU without f16", ALL, adapter({}), "webgpu-q4", /the GPU \(the adapter has no shader-f16\)/],
  ["a GPU with small buffers", ALL, adapter({ buffer: 512 }), "webgpu-q8", /the GPU/],
  ["an emulated GPU", ALL, adapter({ software: true, f16: true }), "wasm-q4", /the CPU: the GPU is emulated/],
  ["no adapter", ALL, undefined, "wasm-q4", /the CPU: there is no WebGPU adapter/],
  ["an emulated GPU alone", manifest(["webgpu-q4"]), adapter({ software: true }), "webgpu-q4", /emulated GPU/],
  ["a bundle for the CPU", manifest(["wasm-q4"]), adapter({}), "wasm-q4", /the bundle has no GPU target/],
])("%s", (_, bundle, found, target, because) => {
  expect(chooseTarget(bundle, device(found))).toMatchObject({ target, because: expect.stringMatching(because) });
});

test("what no target can run on is refused with the reason", () => {
  const only = manifest(["webgpu-q4f16"]);
  expect(() => chooseTarget(only, device(adapter({})))).toThrow(expect.objectContaining({ code: "feature-missing" }));
  expect(() => chooseTarget(only, device(undefined))).toThrow(expect.objectContaining({ code: "adapter-missing" }));
});

test("every target that cannot run here is told with its code, and those that could come in order", () => {
  const { target, refused, others } = chooseTarget(ALL, device(adapter({ buffer: 512 })));
  expect(target).toBe("webgpu-q8");
  expect(refused).toEqual([
    { target: "webgpu-q4f16", code: "feature-missing", reason: "the adapter has no shader-f16" },
    { target: "webgpu-q4", code: "limit-too-small", reason: "the adapter's maxBufferSize is 512; 1024 is needed" },
  ]);
  expect(others).toEqual([{ target: "wasm-q4", gpu: false }]);
  expect(chooseTarget(ALL, device(adapter({ f16: true }))).others).toEqual([
    { target: "webgpu-q4", gpu: true },
    { target: "webgpu-q8", gpu: true },
    { target: "wasm-q4", gpu: false },
  ]);
});

/** Two key heads of 64 values in 16 bits, for keys and for values: 512 bytes a position. */
const STATES = ["key", "value"].map((name) => ({
  input: name,
  output: name,
  dtype: "float16",
  shape: ["batch_size", 2, "past_sequence_length", 64],
}));

function heavy(weights: Record<string, number>): Manifest {
  const plain = manifest(Object.keys(weights));
  const targets = Object.entries(plain.targets).map(([name, each]) => [
    name,
    { ...each, states: STATES, weight_bytes: weights[name] },
  ]);
  return { ...plain, targets: Object.fromEntries(targets) };
}

test("weights and the states of 2048 tokens are predicted", () => {
  const { predicted } = chooseTarget(heavy({ "webgpu-q4": 3 * GIB }), device(adapter({})));
  expect(predicted).toEqual({ downloadBytes: 4, weightBytes: 3 * GIB, cacheBytes: 2048 * 512, positions: 2048 });
});

test.each<[string, Record<string, number>, number | undefined, string, string | undefined]>([
  ["a device with memory enough", { "webgpu-q4": GIB, "webgpu-q8": GIB / 2 }, 2 * GIB, "webgpu-q4", undefined],
  ["a small device", { "webgpu-q4": 3 * GIB, "webgpu-q8": GIB }, 2 * GIB, "webgpu-q8", "webgpu-q4"],
  ["a device whose memory nobody tells", { "webgpu-q4": 30 * GIB }, undefined, "webgpu-q4", undefined],
  ["as much as browsers tell of", { "webgpu-q4": 30 * GIB }, 8 * GIB, "webgpu-q4", undefined],
  // Of the 4 GiB that wasm32 can address, 3.75 are left for weights and cache, on whatever device.
  ["floats that the WASM heap just holds", { "wasm-q4": 3.7 * GIB }, 8 * GIB, "wasm-q4", undefined],
  ["floats beyond the WASM heap", { "wasm-q4": 3.75 * GIB, "webgpu-q4": GIB }, 8 * GIB, "webgpu-q4", "wasm-q4"],
])("%s", (_, weights, memory, target, short) => {
  const choice = chooseTarget(heavy(weights), device(adapter({}), memory));
  expect(choice.target).toBe(target);
  const expected = short === undefined ? [] : [{ target: short, code: "memory-too-small" }];
  expect(choice.refused).toMatchObject(expected);
});

test("a device too small for every target is told so", () => {
  const bundle = heavy({ "webgpu-q4": 3 * GIB, "wasm-q4": 2 * GIB });
  const reason = /webgpu-q4 takes about 3073 MiB of memory; the device has 1024/;
  expect(() => chooseTarget(bundle, device(adapter({}), GIB))).toThrow(
    expect.objectContaining({ code: "memory-too-small", message: expect.stringMatching(reason) }),
  );
});

test.each([[undefined, undefined], [4, true], [3, false]])("with room for %s bytes, storable is %s", (room, storable) => {
  expect(chooseTarget(ALL, device(adapter({ f16: true }), undefined, room)).storable).toBe(storable);
});
