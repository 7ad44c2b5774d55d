import { findShortfall, isSoftware } from "./device.ts";
import { type ErrorCode, TabwrightError } from "./errors.ts";
import { findTarget, type Manifest, shardsOf, type TargetEntry } from "./manifest.ts";
import type { State } from "./schema.ts";

/** What a page can know of its device before it loads anything. */
export interface Means {
  /** The page's adapter, or undefined where there is none. */
  readonly adapter: GPUAdapter | undefined;
  /** The device's memory as far as the browser tells it; it says no more than `TOLD_AT_MOST`. */
  readonly memoryBytes: number | undefined;
  /** What the site may still store. */
  readonly storageBytes: number | undefined;
}

/** What a target will take, as far as it can be told beforehand. */
export interface Predicted {
  readonly downloadBytes: number;
  /** Weights in memory, on the GPU or in the WASM heap. */
  readonly weightBytes: number;
  /** States of `positions` tokens. */
  readonly cacheBytes: number;
  readonly positions: number;
}

/** Why a target cannot run here. */
export interface Refusal {
  readonly target: string;
  readonly code: ErrorCode;
  readonly reason: string;
}

/** The target to load, why this one, and what became of the others. */
export interface TargetChoice {
  readonly target: string;
  /** A sentence for people. */
  readonly because: string;
  readonly predicted: Predicted;
  readonly refused: readonly Refusal[];
  /** Targets that could run here as well, the best first. */
  readonly others: readonly { readonly target: string; readonly gpu: boolean }[];
  /** Whether the site may store all of the download; undefined where the browser does not tell. */
  readonly storable: boolean | undefined;
}

const GIB = 2 ** 30;
/** Browsers tell of no more memory than this, so that devices are harder to tell apart. */
const TOLD_AT_MOST = 8 * GIB;
/** wasm32's address space, less what ONNX Runtime takes and by how much its heap grows too far. */
const HEAP_BYTES = 4 * GIB - 256 * 2 ** 20;
/** Positions whose states are counted as needed. */
const POSITIONS = 2048;

/**
 * Chooses what this device runs best: a hardware GPU before the CPU before a
 * software GPU; among those 16-bit activations first, then the smaller download.
 *
 * @throws TabwrightError `adapter-missing`, `feature-missing`, `limit-too-small` or
 *   `memory-too-small` when no target can run here.
 */
export function chooseTarget(manifest: Manifest, means: Means): TargetChoice {
  const { adapter } = means;
  const software = adapter !== undefined && isSoftware(adapter);
  const candidates = Object.entries(manifest.targets)
    .map(([name, entry]) => {
      const gpu = entry.execution_provider === "webgpu";
      const predicted = predict(manifest, entry);
      return {
        name,
        gpu,
        predicted,
        shortfall: (gpu ? missing(adapter, entry) : undefined) ?? tooLarge(name, gpu, predicted, means),
        rank: gpu ? (software ? 2 : 0) : 1,
        wide: entry.activation_dtype === "float32" ? 1 : 0,
      };
    })
    .sort((a, b) => a.rank - b.rank || a.wide - b.wide || a.predicted.downloadBytes - b.predicted.downloadBytes);
  const able = candidates.filter(({ shortfall }) => shortfall === undefined);
  const [best, ...others] = able;
  if (best === undefined) {
    throw candidates[0]?.shortfall ?? new TabwrightError("target-unknown", "the bundle has no target");
  }
  const refused = candidates.flatMap(({ name, shortfall }) =>
    shortfall ? [{ target: name, code: shortfall.code, reason: shortfall.message }] : [],
  );
  const { name, predicted } = best;
  return {
    target: name,
    because: sentence(best.gpu, software, candidates[0]?.shortfall),
    predicted,
    refused,
    others: others.map((other) => ({ target: other.name, gpu: other.gpu })),
    storable: means.storageBytes === undefined ? undefined : predicted.downloadBytes <= means.storageBytes,
  };
}

/** `passed`: why what would have been better did not do. */
function sentence(gpu: boolean, software: boolean, passed: TabwrightError | undefined): string {
  if (gpu) {
    const where = software ? "an emulated GPU: the bundle has no CPU target" : "the GPU";
    return `runs on ${where}${passed ? ` (${passed.message})` : ""}`;
  }
  const why = passed?.message ?? (software ? "the GPU is emulated in software" : "the bundle has no GPU target");
  return `runs on the CPU: ${why}`;
}

function missing(adapter: GPUAdapter | undefined, entry: TargetEntry): TabwrightError | undefined {
  return adapter
    ? findShortfall(adapter, entry)
    : new TabwrightError("adapter-missing", "there is no WebGPU adapter");
}

/** What `entry` takes at {@link POSITIONS} tokens, or at the model's context where that is shorter. */
export function predict(manifest: Manifest, entry: TargetEntry): Predicted {
  const sizes = new Map(manifest.files.map((file) => [file.path, file.size]));
  const downloadBytes = shardsOf(manifest, entry).reduce((sum, path) => sum + (sizes.get(path) ?? 0), 0);
  const positions = Math.min(POSITIONS, manifest.model.context_length);
  const cacheBytes = entry.states.reduce((sum, state) => sum + stateBytes(state, positions), 0);
  return { downloadBytes, weightBytes: entry.weight_bytes ?? downloadBytes, cacheBytes, positions };
}

function stateBytes({ shape, dtype }: State, positions: number): number {
  const sizes = shape.map((axis) => (axis === "past_sequence_length" ? positions : axis === "batch_size" ? 1 : axis));
  return sizes.reduce((product, size) => product * size, dtype === "float16" ? 2 : 4);
}

function tooLarge(
  target: string,
  gpu: boolean,
  { weightBytes, cacheBytes }: Predicted,
  { memoryBytes }: Means,
): TabwrightError | undefined {
  // On the CPU a step's old cache and its new one are there together.
  const needed = weightBytes + (gpu ? 1 : 2) * cacheBytes;
  const refuse = (room: number, whose: string) =>
    new TabwrightError(
      "memory-too-small",
      `${target} takes about ${mebibytes(needed)} MiB of memory; ${whose} has ${mebibytes(room)}`,
    );
  if (!gpu && needed > HEAP_BYTES) return refuse(HEAP_BYTES, "WebAssembly");
  // No page is told what memory a GPU has of its own; where it has none, this is all there is.
  const told = memoryBytes !== undefined && memoryBytes < TOLD_AT_MOST;
  return told && needed > memoryBytes ? refuse(memoryBytes, "the device") : undefined;
}

function mebibytes(bytes: number): number {
  return Math.round(bytes / 2 ** 20);
}

/** The choice of someone who named the target: nothing else is considered. */
export function chosenBefore(manifest: Manifest, target: string): Pick<TargetChoice, "target" | "others"> {
  findTarget(manifest, target);
  return { target, others: [] };
}

/** What the browser tells of this device. */
export async function lookAround(adapter: Promise<GPUAdapter>): Promise<Means> {
  const found = await adapter.catch((error: unknown) => {
    if (error instanceof TabwrightError) return undefined;
    throw error;
  });
  const gibibytes = (navigator as { readonly deviceMemory?: number }).deviceMemory;
  // Refused in some private windows; what cannot be told is not judged.
  const storage = await navigator.storage?.estimate?.().catch(() => undefined);
  return {
    adapter: found,
    memoryBytes: gibibytes === undefined ? undefined : gibibytes * GIB,
    storageBytes:
      storage?.quota === undefined || storage.usage === undefined ? undefined : storage.quota - storage.usage,
  };
}
