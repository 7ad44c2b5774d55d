import type { Attention } from "./attention_nodes.ts";
import type { Look } from "./heap.ts";
import { HeapCache } from "./heap_cache.ts";
import { type Kernel, PANEL } from "./kernel.ts";

/** Positions whose scores are in memory at a time. */
const AT_ONCE = 32;

/** Keys and values of one attention. */
export type Caches = readonly [keys: HeapCache, values: HeapCache];

/** Where floats are. */
export interface Places {
  /** Of new positions: queries, keys and values, or all of them next to each other. */
  readonly inputs: readonly number[];
  /** Cosines and sines of all positions, [positions, pairs]. */
  readonly rotation: readonly Look[] | undefined;
  /** Room for float32 [count, heads * width]. */
  readonly output: number;
}

/** Caches of no positions yet. */
export function newCaches({ heap }: Kernel, { keyHeads, width }: Attention): Caches {
  return [new HeapCache(heap, keyHeads, 4 * width), new HeapCache(heap, (keyHeads * width) / PANEL, 4 * PANEL)];
}

/**
 * Attends from `count` new positions, whose keys and values are added to `caches`.
 *
 * @throws TabwrightError `session-failed` when the heap has no room, Error when there are no angles for so many
 *   positions. The caches are then of no more use.
 */
export function attend(kernel: Kernel, attention: Attention, caches: Caches, { inputs, rotation, output }: Places, count: number): void {
  const { heads, keyHeads, width, scale, window } = attention;
  const [keys, values] = caches;
  const [queryBytes, keyBytes] = [4 * heads * width, 4 * keyHeads * width];
  const [query, key = query + queryBytes, value = key + keyBytes] = inputs as [number, number?, number?];
  // Next to each other, from one position to the next it is as far for all.
  const apart = queryBytes + 2 * keyBytes;
  const [queryStep, keyStep] = inputs.length === 1 ? [apart, apart] : [queryBytes, keyBytes];
  const [scaleBits = 0] = new Uint32Array(Float32Array.of(scale).buffer);
  const [cosines, sines] = rotation ?? [];
  const [positions, pairs] = cosines?.dims ?? [Infinity, 0];
  if (keys.length + count > (positions as number)) throw new Error(`the graph has no rotations for ${keys.length + count} positions`);
  for (const cache of caches) cache.reserve(cache.length + count);
  for (let from = 0; from < count; from += AT_ONCE) {
    const rows = Math.min(AT_ONCE, count - from);
    const start = keys.length;
    const between = Math.ceil((start + rows) / PANEL) * PANEL;
    const [rotated, scores] = kernel.room([rows * queryBytes, 4 * heads * rows * between]) as [number, number];
    const words = [
      ...[heads, keyHeads, width, pairs as number, window, scaleBits, rows, start, keys.capacity, values.capacity],
      ...[query + from * queryStep, queryStep, key + from * keyStep, value + from * keyStep, keyStep],
      ...[cosines?.data ?? 0, sines?.data ?? 0, keys.place, values.place, rotated, scores, output + from * queryBytes],
    ];
    kernel.exports.attend(kernel.job(words));
    for (const cache of caches) cache.length += rows;
  }
}
