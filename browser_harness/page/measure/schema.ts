// Written by `python -m manifests.generate` from manifests/*.py. Do not edit.

/** The GPU adapter as WebGPU describes it. */
export interface Adapter {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly is_fallback: boolean;
  readonly features: readonly string[];
  readonly device_features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
}

/**
 * How fast memory is moved by nothing but a loop, on the same device and threads.
 *
 * ``webgpu-copy``: a compute shader copies a buffer; ``bytes`` are read and written.
 * ``wasm-read``: 16 bytes at a time are read, on ``threads`` threads.  Each of ``ms`` is the
 * time of moving ``bytes``, taken by ``clock``; the first ``warmup`` are not judged.
 */
export interface Bandwidth {
  readonly kind: "webgpu-copy" | "wasm-read";
  readonly threads: number;
  readonly bytes: number;
  readonly clock: "gpu" | "wall";
  readonly warmup: number;
  readonly ms: readonly number[];
}

/**
 * A way that failed, the one that took its place, and why.
 *
 * ``code`` is the error's code: ``self-check-failed`` where the logits were wrong.
 */
export interface Fallback {
  readonly step: "needed-features" | "short-prefill" | "plain-loop" | "other-target" | "cpu";
  readonly failed: Way;
  readonly taken: Way;
  readonly code: string;
  readonly reason: string;
}

/**
 * A greedy continuation; ``at_ms[i]`` is when token i was there, from the start.
 *
 * ``calls`` is what the page asked of the GPU until the last token; absent without a GPU.
 */
export interface GenerateResult {
  readonly tokens: readonly number[];
  readonly text: string;
  readonly at_ms: readonly number[];
  readonly calls?: GpuCalls;
}

/**
 * ``count`` live GPU buffers of ``size`` bytes, one label and one ``usage``.
 *
 * Whoever made them chose the label; ``usage`` is WebGPU's ``GPUBufferUsage`` flags.
 */
export interface GpuBuffers {
  readonly label: string;
  readonly usage: number;
  readonly size: number;
  readonly count: number;
}

/**
 * What the page has asked of the GPU since its beginning.
 *
 * ``buffer_bytes`` were allocated, whether or not they still are; ``read_bytes`` were
 * mapped to be read by the page.
 */
export interface GpuCalls {
  readonly dispatches: number;
  readonly submits: number;
  readonly bind_groups: number;
  readonly buffers: number;
  readonly buffer_bytes: number;
  readonly read_bytes: number;
}

/**
 * Compute passes by timestamps of the GPU: how many, and the milliseconds of all together.
 *
 * ``full``: there were more than could be timed.
 */
export interface GpuPasses {
  readonly passes: number;
  readonly ms: number;
  readonly full: boolean;
}

/**
 * Load ``target`` of the bundle at ``manifest_url``.
 *
 * ``device_features``: ``needed`` asks the GPU device for the target's features
 * only; ``all`` for every feature the adapter has.  ``loop``: how tokens are made on a
 * GPU; ``resident`` stays on it where that is possible.  ``self_check``: whether the
 * bundle's stored logits are compared, see manifests/self_check.py.
 */
export interface LoadRequest {
  readonly manifest_url: string;
  readonly target: string;
  readonly threads: number;
  readonly device_features: "needed" | "all";
  readonly loop: "resident" | "plain";
  readonly self_check: boolean;
}

/**
 * What was loaded, on what.
 *
 * ``software``: the page, which sees the adapter, decides whether it is a CPU in
 * disguise; the harness believes it.  ``notes`` are sentences for whoever reads the
 * report: what the page did differently from what it was asked.
 */
export interface LoadResult {
  readonly timings: LoadTimings;
  readonly adapter?: Adapter;
  readonly software: boolean;
  readonly loop: "resident" | "plain";
  readonly notes: readonly string[];
  readonly threads: number;
  readonly cross_origin_isolated: boolean;
  readonly jspi: boolean;
  readonly onnxruntime_web: string;
  readonly fallbacks: readonly Fallback[];
  readonly self_check?: SelfCheckResult;
}

/**
 * Where the load went, in milliseconds of wall time.
 *
 * Phases overlap (chunks are verified and stored while others download), so
 * ``fetch``, ``verify`` and ``store`` are each the time in which at least one
 * chunk was in that phase, and may sum to more than ``total``.
 */
export interface LoadTimings {
  readonly fetch_ms: number;
  readonly verify_ms: number;
  readonly store_ms: number;
  readonly session_ms: number;
  readonly total_ms: number;
  readonly bytes_fetched: number;
  readonly bytes_from_store: number;
  readonly self_check_ms: number;
}

/** Logits of consecutive positions: little-endian float32 [rows, vocabulary], base64. */
export interface LogitsBlock {
  readonly start: number;
  readonly rows: number;
  readonly vocabulary: number;
  readonly data: string;
}

/**
 * What the page itself can see, in bytes; ``None`` where the browser hides it.
 *
 * ``gpu_bytes`` is the sum of live GPUBuffer sizes (createBuffer less destroy),
 * ``gpu_peak_bytes`` its highest value so far; the WASM heap never shrinks, so
 * its size is its peak.
 */
export interface PageMemory {
  readonly js_heap_bytes?: number;
  readonly wasm_heap_bytes: number;
  readonly gpu_bytes: number;
  readonly gpu_peak_bytes: number;
}

/**
 * Whether the device came to the logits that the bundle stores.
 *
 * ``passed-before``: an earlier load's pass, of the same bundle on the same adapter and
 * browser, is trusted.  ``error``: the largest distance of a logit, in spreads.
 */
export interface SelfCheckResult {
  readonly outcome: "passed" | "passed-before" | "skipped" | "absent";
  readonly error?: number;
  readonly tolerance?: number;
  readonly positions: number;
}

/** How likely a token was where it was asked for (nats), and which was the likeliest there. */
export interface TokenChance {
  readonly logprob: number;
  readonly likeliest: number;
}

/**
 * How a load goes about it: what a fallback changes.
 *
 * ``prefill_chunk``: most tokens of a prompt's step; ``None`` for what suits the adapter.
 */
export interface Way {
  readonly target: string;
  readonly device_features: "needed" | "all";
  readonly loop: "resident" | "plain";
  readonly prefill_chunk?: number;
}
