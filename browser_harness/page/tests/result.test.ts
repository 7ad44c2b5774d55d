import { afterEach, expect, test, vi } from "vitest";

import { loadResult } from "../measure/result.ts";
import type { LoadedFacts } from "../runtime/index.ts";

afterEach(() => void vi.unstubAllGlobals());

const INFO = {
  target: "webgpu-q4",
  timings: { total_ms: 7 },
  adapter: undefined,
  software: true,
  threads: 1,
  onnxruntimeWeb: "1.30.0",
  notes: ["one thread only"],
} as unknown as LoadedFacts;

test("the harness is told what the page found out about itself", () => {
  vi.stubGlobal("crossOriginIsolated", true);
  expect(loadResult(INFO)).toMatchObject({
    timings: { total_ms: 7 },
    software: true,
    notes: ["one thread only"],
    threads: 1,
    cross_origin_isolated: true,
    onnxruntime_web: "1.30.0",
  });
});

test("a load without a GPU has no adapter, not an undefined one", () => {
  vi.stubGlobal("crossOriginIsolated", true);
  expect("adapter" in loadResult(INFO)).toBe(false);
});
