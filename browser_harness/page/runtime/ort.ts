import * as ort from "onnxruntime-web/jspi";

import { checkCount } from "./counts.ts";
import { reason, TabwrightError } from "./errors.ts";
import { watched } from "./ort_module.ts";
import { withRecording } from "./recording.ts";

export { ort };

/** onnxruntime-web's version. */
export function ortVersion(): string {
  return ort.env.versions.web ?? "unknown";
}

/** @throws TabwrightError `jspi-missing` where WebAssembly cannot wait for promises. */
export function requireJspi(): void {
  if (!("Suspending" in WebAssembly)) {
    throw new TabwrightError(
      "jspi-missing",
      "this browser has no WebAssembly JavaScript Promise Integration (Chrome and Edge 137 have it)",
    );
  }
}

let prepared = false;

/**
 * Points ONNX Runtime at verified files. It starts once per page or worker, with its first session, and with
 * one thread: the others are for products, and ONNX Runtime's would keep their cores busy waiting.
 */
export function prepareOrt(module: Blob, wasm: Blob): void {
  if (prepared) return;
  // Never revoked: ONNX Runtime reads them when it starts.
  const script = (code: BlobPart) => URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  ort.env.wasm.wasmPaths = {
    mjs: script(watched(script(module))),
    wasm: URL.createObjectURL(new Blob([wasm], { type: "application/wasm" })),
  };
  ort.env.wasm.numThreads = 1;
  ort.env.logLevel = "error";
  prepared = true;
}

/** `threads` as far as the page can have them, with a note when it cannot. */
export function usableThreads(wanted: number | undefined, gpu: boolean, notes: string[]): number {
  // More threads than cores hurt.
  const threads = wanted ?? Math.min(4, Math.ceil(navigator.hardwareConcurrency / 2));
  checkCount("threads", threads, 1);
  // Beside a GPU the CPU only does odd jobs.
  if (gpu) return 1;
  if (threads > 1 && !crossOriginIsolated) {
    notes.push("one thread only: the page is not cross-origin isolated (COOP and COEP headers)");
    return 1;
  }
  return threads;
}

/** How a session hands out its results. */
export interface SessionUse {
  /** Outputs that stay on the GPU, where there is one. */
  readonly gpuOutputs: readonly string[];
  /** Whether runs are recorded and replayed; all outputs must then stay on the GPU. */
  readonly record?: boolean;
}

/** What {@link createSession} needs of a target. */
export interface SessionFiles {
  /** A ModelProto. */
  readonly graph: Uint8Array;
  /** Shards by the location that the graph names: the bare file name. */
  readonly shards: ReadonlyMap<string, Blob>;
}

/**
 * Creates a session. ONNX Runtime reads the shards from their blobs slice by slice.
 *
 * @param device the GPU device, or undefined for the CPU.
 * @throws TabwrightError `session-failed`.
 */
export async function createSession(
  files: SessionFiles,
  device: GPUDevice | undefined,
  sessionConfig: Readonly<Record<string, string>>,
  use: SessionUse = { gpuOutputs: [] },
): Promise<ort.InferenceSession> {
  const options: ort.InferenceSession.SessionOptions = {
    executionProviders: [device ? { name: "webgpu", device } : "wasm"],
    externalData: Array.from(files.shards, ([path, data]) => ({ path, data })),
    extra: nest(sessionConfig),
    logSeverityLevel: 3,
  };
  if (device) {
    options.preferredOutputLocation = Object.fromEntries(
      use.gpuOutputs.map((name) => [name, "gpu-buffer" as const]),
    );
  }
  try {
    return await ort.InferenceSession.create(files.graph, use.record ? withRecording(options) : options);
  } catch (error) {
    throw new TabwrightError("session-failed", `ONNX Runtime refused the graph: ${reason(error)}`, error);
  }
}

/** `{"a.b": "1"}` as `{a: {b: "1"}}`, the form in which onnxruntime-web takes its options. */
export function nest(flat: Readonly<Record<string, string>>): Record<string, unknown> {
  const root: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(flat)) {
    const parts = key.split(".");
    const leaf = parts.pop() as string;
    let node = root;
    for (const part of parts) node = (node[part] ??= {}) as Record<string, unknown>;
    node[leaf] = value;
  }
  return root;
}
