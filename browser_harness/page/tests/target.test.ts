import { expect, test } from "vitest";

import type { Manifest } from "../runtime/manifest.ts";
import { chooseTarget } from "../runtime/target.ts";

const entry = { graph: "g", features: [], limits: {}, session_config: {}, activation_dtype: "float32" };

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

test.each<[string, Manifest, GPUAdapter | undefined, string, RegExp]>([
  ["a GPU with f16", ALL, adapter({ f16: true }), "webgpu-q4f16", /^runs on the GPU$/],
  ["a GPU without f16", ALL, adapter({}), "webgpu-q4", /the GPU \(the adapter has no shader-f16\)/],
  ["a GPU with small buffers", ALL, adapter({ buffer: 512 }), "webgpu-q8", /the GPU/],
  ["an emulated GPU", ALL, adapter({ software: true, f16: true }), "wasm-q4", /the CPU: the GPU is emulated/],
  ["no adapter", ALL, undefined, "wasm-q4", /the CPU: there is no WebGPU adapter/],
  ["an emulated GPU alone", manifest(["webgpu-q4"]), adapter({ software: true }), "webgpu-q4", /emulated GPU/],
  ["a bundle for the CPU", manifest(["wasm-q4"]), adapter({}), "wasm-q4", /the bundle has no GPU target/],
])("%s", (_, bundle, device, target, because) => {
  expect(chooseTarget(bundle, device)).toEqual({ target, because: expect.stringMatching(because) });
});

test("what no target can run on is refused with the reason", () => {
  const only = manifest(["webgpu-q4f16"]);
  expect(() => chooseTarget(only, adapter({}))).toThrow(expect.objectContaining({ code: "feature-missing" }));
  expect(() => chooseTarget(only, undefined)).toThrow(expect.objectContaining({ code: "adapter-missing" }));
});
