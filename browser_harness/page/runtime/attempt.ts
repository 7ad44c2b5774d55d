import type { LoopKind } from "./api.ts";
import { type Gpu, requestAdapter, requestGpu, throwIfLost } from "./device.ts";
import { TabwrightError, throwIfAborted } from "./errors.ts";
import { findTarget, type Manifest, ORT_MODULE, ORT_WASM, shardsOf, type TargetEntry } from "./manifest.ts";
import type { Progress } from "./obtain.ts";
import { type CacheMemory, type OpenLoop, openLoop, prefillSizes } from "./open_loop.ts";
import { ortVersion, prepareOrt, usableThreads } from "./ort.ts";
import { Passes } from "./passes.ts";
import type { SelfCheckResult, Way } from "./schema.ts";
import { compareLogits, readSelfCheck } from "./self_check.ts";
import { startOrt } from "./start_ort.ts";
import { SteadyBlob } from "./steady.ts";
import type { ChunkStore } from "./store.ts";

/** Verified files by their paths. */
export type Files = ReadonlyMap<string, Blob>;

/** What every way of a load has in common. */
export interface Attempting {
  readonly manifest: Manifest;
  readonly store: ChunkStore;
  /** The files that `entry` is made from, by path; `early` is called as soon as ORT's are there. */
  readonly files: (entry: TargetEntry, early: (files: Files) => void) => Promise<Files>;
  readonly threads: number | undefined;
  readonly selfCheck: boolean;
  readonly memory: CacheMemory;
  readonly signal: AbortSignal | undefined;
  readonly onProgress: (progress: Progress) => void;
  readonly notes: string[];
}

/** A model that runs, and how it came to. */
export interface Opened extends OpenLoop {
  readonly files: Files;
  readonly gpu: Gpu | undefined;
  readonly threads: number;
  readonly check: SelfCheckResult;
  readonly sessionMs: number;
  readonly checkMs: number;
  /** Frees all of it. */
  readonly release: () => Promise<void>;
}

/** How tokens are really made: a wish for the resident loop needs a GPU and a graph for it. */
export function loopOf(entry: TargetEntry, wanted: LoopKind | undefined): LoopKind {
  const possible = entry.execution_provider === "webgpu" && entry.resident_graph !== undefined;
  return possible ? (wanted ?? "resident") : "plain";
}

/**
 * Opens the model one way, and checks its logits.
 *
 * @throws TabwrightError `self-check-failed`, or whatever kept it from opening; nothing of it
 *   is left then but its files.
 */
export async function openWay(way: Way, common: Attempting): Promise<Opened> {
  const { manifest, notes, onProgress } = common;
  const entry = findTarget(manifest, way.target);
  const gpu =
    entry.execution_provider === "webgpu"
      ? await requestGpu(await requestAdapter(), entry, way.device_features)
      : undefined;
  let opened: OpenLoop | undefined;
  const release = async () => {
    opened?.loop.dispose();
    await opened?.session.release();
    gpu?.destroy();
  };
  try {
    const threads = usableThreads(common.threads, gpu !== undefined, notes);
    const files = await common.files(entry, (early) => {
      prepareOrt(fileAt(early, ORT_MODULE), fileAt(early, ORT_WASM));
      void startOrt();
    });
    throwIfAborted(common.signal);
    const total = [...files.values()].reduce((sum, file) => sum + file.size, 0);
    const told = { done: total, total, file: entry.graph };
    onProgress({ phase: "session", ...told });
    const start = performance.now();
    await startOrt();
    const shards = shardBlobs(manifest, entry, files);
    const file = (path: string) => fileAt(files, path);
    const parts = { entry, facts: manifest.model, gpu, file, shards, threads, signal: common.signal, notes };
    const chunks = prefillSizes(way.loop, gpu?.software, way.prefill_chunk);
    opened = await openLoop(way.loop, parts, chunks, common.memory);
    throwIfAborted(common.signal); // ONNX Runtime cannot be stopped while it makes a session.
    const checking = performance.now();
    onProgress({ phase: "check", ...told });
    const check = await checkLogits(way, opened, files, gpu, common);
    const checkMs = performance.now() - checking;
    return { ...opened, files, gpu, threads, check, sessionMs: checking - start, checkMs, release };
  } catch (error) {
    // ONNX Runtime tells a lost device with reasons that explain nothing.
    await throwIfLost(gpu).finally(release);
    throw error;
  }
}

async function checkLogits(
  way: Way,
  { loop }: OpenLoop,
  files: Files,
  gpu: Gpu | undefined,
  { manifest, store, selfCheck, signal, notes }: Attempting,
): Promise<SelfCheckResult> {
  const path = manifest.self_check;
  if (!selfCheck) {
    notes.push("the self-check was skipped, as asked: nobody knows whether this device computes rightly");
    return { outcome: "skipped", positions: 0 };
  }
  const passes = new Passes(store, manifest.seal, ortVersion());
  if (path !== undefined && (await passes.has(way, gpu))) return { outcome: "passed-before", positions: 0 };
  const stored = path === undefined ? undefined : await readSelfCheck(fileAt(files, path), path, manifest.model.vocab_size);
  const result = stored && (await compareLogits(stored, way.target, loop, signal));
  if (result === undefined) {
    notes.push("no self-check: the bundle stores no logits for this target");
    return { outcome: "absent", positions: 0 };
  }
  await passes.keep(way, gpu);
  return result;
}

/** A target's shards by the location that its graph names, which is in the same folder. */
function shardBlobs(
  manifest: Manifest,
  entry: TargetEntry,
  files: Files,
): Map<string, SteadyBlob> {
  return new Map(
    shardsOf(manifest, entry).map((path) => {
      const location = path.slice(path.lastIndexOf("/") + 1);
      return [location, new SteadyBlob([fileAt(files, path)])];
    }),
  );
}

/** @throws TabwrightError `manifest-invalid` when the file is none that a load brings. */
export function fileAt(files: Files, path: string): Blob {
  const found = files.get(path);
  if (!found) throw new TabwrightError("manifest-invalid", `${path} is used but is a page file`);
  return found;
}
