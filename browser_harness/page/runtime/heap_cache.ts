import type { Heap } from "./heap.ts";
import { PANEL } from "./kernel.ts";

/** Positions by which a cache grows: a small part of what it copies then is copied for each of them. */
export const CACHE_STEP = 128;

/**
 * The keys or the values of a layer, in ONNX Runtime's heap, where the kernel adds to them in place. They lie
 * in runs one after the other, each of as many rows as there is room for positions.
 */
export class HeapCache {
  readonly #heap: Heap;
  readonly #runs: number;
  readonly #rowBytes: number;
  #place = 0;
  #capacity = 0;
  /** Positions that are there. */
  length = 0;

  /** @param rowBytes what a position takes of each of `runs`. */
  constructor(heap: Heap, runs: number, rowBytes: number) {
    this.#heap = heap;
    this.#runs = runs;
    this.#rowBytes = rowBytes;
  }

  get place(): number {
    return this.#place;
  }

  /** Positions that there is room for. */
  get capacity(): number {
    return this.#capacity;
  }

  /**
   * Makes room for `length` positions.
   *
   * @throws TabwrightError `session-failed` when there is none; the cache is then as it was.
   */
  reserve(length: number): void {
    if (length <= this.#capacity) return;
    const capacity = Math.ceil(length / CACHE_STEP) * CACHE_STEP;
    const place = this.#heap.allocate(this.#runs * capacity * this.#rowBytes);
    const { bytes } = this.#heap;
    // Positions lie in panels, which are copied whole.
    const used = Math.ceil(this.length / PANEL) * PANEL * this.#rowBytes;
    for (let run = 0; run < this.#runs; run++) {
      const from = this.#place + run * this.#capacity * this.#rowBytes;
      bytes.copyWithin(place + run * capacity * this.#rowBytes, from, from + used);
    }
    this.#free();
    this.#place = place;
    this.#capacity = capacity;
  }

  /** Gives its memory back. */
  dispose(): void {
    this.#free();
    this.#place = 0;
    this.#capacity = 0;
    this.length = 0;
  }

  #free(): void {
    this.#heap.module._free(this.#place);
  }
}
