import { Dequantiser, type Reader } from "./dequantiser.ts";
import { throwIfAborted } from "./errors.ts";
import type { FoldedWeight } from "./folded_weights.ts";
import type { Heap, HeapTensor } from "./heap.ts";

/** What ONNX Runtime aligns its own tensors to, in bytes. */
const ALIGNMENT = 64;

/** Floats in one block of ONNX Runtime's heap. */
export class HeapWeights {
  /** By the names of the graph's inputs. */
  readonly tensors = new Map<string, HeapTensor>();
  readonly #heap: Heap;
  #block: number | undefined;

  /** @throws TabwrightError `session-failed` when there is no room for `bytes`. */
  constructor(heap: Heap, bytes: number) {
    this.#heap = heap;
    this.#block = heap.allocate(bytes + ALIGNMENT);
  }

  /** Where the first one begins. */
  get start(): number {
    return aligned(this.#block as number);
  }

  /** Gives their memory back, once. */
  dispose(): void {
    if (this.#block === undefined) return;
    for (const tensor of this.tensors.values()) tensor.dispose();
    this.#heap.module._free(this.#block);
    this.#block = undefined;
  }
}

/**
 * Makes the floats of `folded`.
 *
 * @throws TabwrightError `session-failed`, `aborted`, or what `read` throws; nothing is left then.
 */
export async function makeHeapWeights(
  heap: Heap,
  folded: readonly FoldedWeight[],
  read: Reader,
  signal: AbortSignal | undefined,
): Promise<HeapWeights> {
  const made = new HeapWeights(heap, folded.reduce((sum, weight) => sum + aligned(bytesOf(weight)), 0));
  try {
    const dequantiser = await Dequantiser.make();
    let start = made.start;
    for (const weight of folded.toSorted(inTheOrderOfFiles)) {
      throwIfAborted(signal);
      let at = start;
      for await (const strip of dequantiser.strips(weight, read)) {
        heap.bytes.set(strip, at);
        at += strip.length;
      }
      made.tensors.set(weight.name, heap.tensor("float32", start, bytesOf(weight), [weight.columns, weight.rows]));
      start += aligned(bytesOf(weight));
    }
    return made;
  } catch (error) {
    made.dispose();
    throw error;
  }
}

/** So that each part of a file is read once. */
function inTheOrderOfFiles({ codes: a }: FoldedWeight, { codes: b }: FoldedWeight): number {
  return a.location === b.location ? a.offset - b.offset : a.location < b.location ? -1 : 1;
}

function bytesOf({ rows, columns }: FoldedWeight): number {
  return 4 * rows * columns;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
