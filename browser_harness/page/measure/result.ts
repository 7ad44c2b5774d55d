import type { LoadedFacts } from "../runtime/index.ts";
import type { LoadResult } from "./schema.ts";

/** What the harness is told about a load. */
export function loadResult(info: LoadedFacts): LoadResult {
  const { timings, adapter, software, loop, notes, threads, onnxruntimeWeb, fallbacks, selfCheck } = info;
  return {
    timings,
    ...(adapter ? { adapter } : {}),
    software,
    loop,
    notes,
    threads,
    cross_origin_isolated: crossOriginIsolated,
    jspi: "Suspending" in WebAssembly,
    onnxruntime_web: onnxruntimeWeb,
    fallbacks,
    self_check: selfCheck,
  };
}
