import type { Gpu } from "./device.ts";
import { reason, TabwrightError } from "./errors.ts";
import { Forward } from "./forward.ts";
import { type Loop, PlainLoop } from "./loop.ts";
import { createSession, type ort } from "./ort.ts";
import { Resident } from "./resident.ts";
import { ResidentLoop } from "./resident_loop.ts";
import type { Model as ModelFacts, TargetEntry } from "./schema.ts";

/** `resident`: the GPU feeds itself. `plain`: every token's logits come to the CPU. */
export type LoopKind = "resident" | "plain";

/** Tokens per prefill step; SwiftShader computes longer ones wrongly. */
const PREFILL = {
  plain: { software: [16], other: [512] },
  // Steps of these sizes are recorded, so there are few; the last one of a prompt is padded.
  resident: { software: [16], other: [256, 32] },
} as const;

export interface LoopOptions {
  /** How tokens are made on a GPU. Default: staying on it, where that is possible. */
  readonly loop?: LoopKind | undefined;
  /** About how many bytes the cache on the GPU grows by at a time. Default: 64 MiB. */
  readonly cacheGrowthBytes?: number | undefined;
}

const CACHE_GROWTH_BYTES = 64 << 20;

/** What a loop is made from. */
export interface Parts {
  readonly entry: TargetEntry;
  readonly facts: ModelFacts;
  readonly gpu: Gpu | undefined;
  /** The file at a path of the bundle. */
  readonly file: (path: string) => Blob;
  /** Shards by the location that the graphs name. */
  readonly shards: ReadonlyMap<string, Blob>;
}

/** A loop, and the session that it runs. */
export interface OpenLoop {
  readonly kind: LoopKind;
  readonly loop: Loop;
  readonly session: ort.InferenceSession;
}

/**
 * Opens the loop that stays on the GPU, or where that cannot be the plain one: `notes` then
 * tells why. There is one session, hence one set of weights.
 *
 * @throws TabwrightError `session-failed`, `graph-unsupported`, `device-lost`.
 */
export async function openLoop(parts: Parts, options: LoopOptions, notes: string[]): Promise<OpenLoop> {
  const { entry, gpu } = parts;
  if (gpu === undefined || options.loop === "plain") return await openPlain(parts);
  const graph = entry.resident_graph;
  if (graph === undefined) {
    notes.push("decodes with the plain loop: the bundle has no graph of this model that stays on the GPU");
    return await openPlain(parts);
  }
  try {
    return await openResident(parts, graph, gpu, options.cacheGrowthBytes ?? CACHE_GROWTH_BYTES);
  } catch (error) {
    if (error instanceof TabwrightError && error.code === "device-lost") throw error;
    notes.push(`decodes with the plain loop: the one that stays on the GPU failed (${reason(error)})`);
    return await openPlain(parts);
  }
}

async function openPlain({ entry, gpu, file, shards }: Parts): Promise<OpenLoop> {
  const session = await createSession({ graph: file(entry.graph), shards }, gpu?.device, entry.session_config, {
    gpuOutputs: entry.states.map(({ output }) => output),
  });
  const [chunk] = sizes("plain", gpu);
  return { kind: "plain", loop: new PlainLoop(new Forward(session, entry.states, gpu?.lost), chunk), session };
}

async function openResident(parts: Parts, graph: string, gpu: Gpu, growth: number): Promise<OpenLoop> {
  const { entry, facts, file, shards } = parts;
  const session = await createSession({ graph: file(graph), shards }, gpu.device, entry.session_config, {
    gpuOutputs: ["logits", "next_ids", ...entry.states.map(({ output }) => output)],
    record: true,
  });
  const resident = new Resident(session, gpu.device, gpu.lost, entry.states, facts.vocab_size);
  gpu.device.pushErrorScope("validation");
  const loop = new ResidentLoop(resident, gpu.device, gpu.lost, sizes("resident", gpu), facts, growth);
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

function sizes(kind: LoopKind, gpu: Gpu | undefined): readonly [number, ...number[]] {
  return PREFILL[kind][gpu?.software ? "software" : "other"];
}
