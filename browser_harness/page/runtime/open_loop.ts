import type { LoopKind, LoopOptions } from "./api.ts";
import { bytesPerPosition, positionsWithin } from "./cache.ts";
import { checkCount } from "./counts.ts";
import type { Gpu } from "./device.ts";
import { TabwrightError } from "./errors.ts";
import { Forward } from "./forward.ts";
import { CACHE_STEP } from "./heap_cache.ts";
import { HeapSession } from "./heap_session.ts";
import { type Loop, PlainLoop } from "./loop.ts";
import { createSession } from "./ort.ts";
import { Resident } from "./resident.ts";
import { ResidentLoop } from "./resident_loop.ts";
import type { Model as ModelFacts, TargetEntry } from "./schema.ts";
import type { SteadyBlob } from "./steady.ts";

/** Tokens per prefill step; SwiftShader computes longer ones wrongly. */
const PREFILL = {
  plain: { software: [16], other: [512] },
  // Steps of these sizes are recorded, so there are few; the last one of a prompt is padded.
  resident: { software: [16], other: [256, 32] },
} as const;
/** The same on the CPU, where steps of 512 are no faster and hold four times as much. */
const CPU_PREFILL = [128] as const;

const CACHE_GROWTH_BYTES = 64 << 20;

/** How much memory the cache may take, in bytes, about. */
export interface CacheMemory {
  /** The most that one on the GPU grows by at a time. */
  readonly growthBytes: number;
  /** What it never exceeds. */
  readonly budgetBytes: number;
}

/** What is asked for, with the defaults of what is not. */
export function cacheMemory({ cacheGrowthBytes = CACHE_GROWTH_BYTES, cacheBudgetBytes = Infinity }: LoopOptions): CacheMemory {
  return { growthBytes: cacheGrowthBytes, budgetBytes: cacheBudgetBytes };
}

/** What a loop is made from. */
export interface Parts {
  readonly entry: TargetEntry;
  readonly facts: ModelFacts;
  readonly gpu: Gpu | undefined;
  /** The file at a path of the bundle. */
  readonly file: (path: string) => Blob;
  /** Shards by the location that the graphs name. */
  readonly shards: ReadonlyMap<string, SteadyBlob>;
  readonly threads: number;
  readonly signal: AbortSignal | undefined;
  /** Receives a sentence for whatever could not be done as it should be. */
  readonly notes: string[];
}

/** A loop, and the session that it runs. */
export interface OpenLoop {
  readonly kind: LoopKind;
  readonly loop: Loop;
  readonly session: { release(): Promise<void> };
}

/**
 * Opens a loop of the wanted kind. There is one session, hence one set of weights.
 *
 * @param chunks sizes of prefill steps, see {@link prefillSizes}.
 * @throws TabwrightError `session-failed`, `graph-unsupported`, `run-failed`, `device-lost`, or
 *   `bad-input` when the budget is less than a step takes; nothing of the loop is left then.
 */
export async function openLoop(
  kind: LoopKind,
  parts: Parts,
  chunks: PrefillSizes,
  memory: CacheMemory,
): Promise<OpenLoop> {
  const { gpu, entry } = parts;
  if (kind === "plain" || gpu === undefined || entry.resident_graph === undefined) {
    return await openPlain(parts, chunks, memory);
  }
  return await openResident(parts, entry.resident_graph, gpu, chunks, memory);
}

async function openPlain(
  { entry, gpu, file, shards, threads, signal, notes }: Parts,
  [chunk]: PrefillSizes,
  { budgetBytes }: CacheMemory,
): Promise<OpenLoop> {
  // The last step of a prompt is not padded here, but the CPU's cache comes in steps of its own.
  const most = positionsWithin(budgetBytes, bytesPerPosition(entry.states), gpu ? 1 : CACHE_STEP);
  const states = entry.states.map(({ output }) => output);
  const files = { graph: await bytesOf(file(entry.graph)), shards };
  const session = gpu
    ? await createSession(files, gpu.device, entry.session_config, { gpuOutputs: states })
    : await HeapSession.open(files, { sessionConfig: entry.session_config, kept: states, threads, signal, notes });
  try {
    const loop = new PlainLoop(new Forward(session, entry.states, gpu?.loss), chunk, most);
    return { kind: "plain", loop, session };
  } catch (error) {
    await session.release();
    throw error;
  }
}

async function openResident(
  parts: Parts,
  graph: string,
  gpu: Gpu,
  chunks: PrefillSizes,
  { growthBytes, budgetBytes }: CacheMemory,
): Promise<OpenLoop> {
  const { entry, facts, file, shards } = parts;
  const affordable = positionsWithin(budgetBytes, bytesPerPosition(entry.states), chunks.at(-1) as number);
  const session = await createSession({ graph: await bytesOf(file(graph)), shards }, gpu.device, entry.session_config, {
    gpuOutputs: ["logits", "next_ids", ...entry.states.map(({ output }) => output)],
    record: true,
  });
  const resident = new Resident(session, gpu.device, gpu.loss, entry.states, facts.vocab_size);
  gpu.device.pushErrorScope("validation");
  const loop = new ResidentLoop(resident, gpu.device, gpu.loss, chunks, facts, { growthBytes, affordable });
  const fault = await gpu.device.popErrorScope();
  try {
    if (fault) throw new TabwrightError("run-failed", `the GPU refused the sampler: ${fault.message}`);
    // An emulated GPU needs minutes for a prompt of a real model.
    await loop.warmUp(!gpu.software);
  } catch (error) {
    loop.dispose();
    await session.release();
    throw error;
  }
  return { kind: "resident", loop, session };
}

async function bytesOf(file: Blob): Promise<Uint8Array> {
  return new Uint8Array(await file.arrayBuffer());
}

export type PrefillSizes = readonly [number, ...number[]];

/**
 * Sizes of prefill steps, the largest first and each a multiple of the next.
 *
 * @param software whether the GPU is emulated; undefined on the CPU.
 * @throws TabwrightError `bad-input` when `wanted` is no whole number from 1 up.
 */
export function prefillSizes(
  kind: LoopKind,
  software: boolean | undefined,
  wanted: number | undefined,
): PrefillSizes {
  if (wanted === undefined && software === undefined) return CPU_PREFILL;
  if (wanted === undefined) return PREFILL[kind][software ? "software" : "other"];
  checkCount("prefillChunk", wanted, 1);
  return [wanted];
}
