/// <reference path="./wasm.d.ts" />
import wasm from "../dist/kernel/kernel.wasm";

import type { Heap } from "./heap.ts";

/** What is used of what `kernel/` exports. */
export interface Exports {
  panelBytes(columns: number, bits: number, span: number, zeros: boolean): number;
  pack(
    codes: number,
    scales: number,
    scaleBytes: number,
    zeroPoints: number,
    zeros: boolean,
    rows: number,
    columns: number,
    bits: number,
    block: number,
    span: number,
    packed: number,
  ): void;
  round(values: number, length: number, span: number, rounded: number, steps: number, sums: number): void;
  multiply(job: number): void;
  attend(job: number): void;
}

/** Values that the kernel works on at once. */
export const PANEL = 16;
const ALIGNMENT = 64;
/** Words of the longest job; the first are the threads', as `kernel/job.ts` has them. */
const JOB_WORDS = 26;
const FIRST_WORD = 4;
const NONE_MAY_JOIN = 2 ** 32 - 1;

/** What each helping thread runs: the kernel on the same memory, for as long as it is let. */
const HELPER = `onmessage = ({ data: { kernel, memory, job, thread } }) => {
  const { exports } = new WebAssembly.Instance(kernel, { env: { memory } });
  postMessage("ready");
  exports.serve(job, thread);
};`;

/** The page's own WebAssembly, on ONNX Runtime's heap, and the threads that share its work. */
export class Kernel {
  readonly heap: Heap;
  readonly exports: Exports;
  /** How many threads work, the one that asks among them. */
  readonly threads: number;
  readonly #helpers: Worker[] = [];
  readonly #job: number;
  #room = { place: 0, bytes: 0 };

  private constructor(heap: Heap, exports: Exports, threads: number) {
    this.heap = heap;
    this.exports = exports;
    this.threads = threads;
    // Never given back: a thread that is ended may look at it for a while.
    this.#job = heap.allocate(4 * JOB_WORDS);
    this.#words(0, JOB_WORDS).fill(0).fill(NONE_MAY_JOIN, 1, 2);
  }

  /** @param threads how many work, this one among them. */
  static async open(heap: Heap, threads: number): Promise<Kernel> {
    const module = await WebAssembly.compile(wasm);
    const { memory } = heap.module;
    const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
    const kernel = new Kernel(heap, exports as unknown as Exports, threads);
    try {
      const script = URL.createObjectURL(new Blob([HELPER], { type: "text/javascript" }));
      const starting = Array.from({ length: threads - 1 }, (_, index) =>
        kernel.#help(script, { kernel: module, memory, job: kernel.#job, thread: index + 1 }),
      );
      await Promise.all(starting).finally(() => URL.revokeObjectURL(script));
      return kernel;
    } catch (error) {
      kernel.dispose();
      throw error;
    }
  }

  /**
   * Writes a job, to be done by one of {@link exports}.
   *
   * @param words its numbers in the order of the kernel's source, floats as their bits.
   */
  job(words: readonly number[]): number {
    this.#words(FIRST_WORD, words.length).set(words);
    return this.#job;
  }

  /**
   * Room for what a job makes on its way: parts one after the other, which the next job may write over.
   *
   * @throws TabwrightError `session-failed` when there is none.
   */
  room(sizes: readonly number[]): number[] {
    const bytes = sizes.reduce((sum, size) => sum + aligned(size), 0);
    if (bytes > this.#room.bytes) {
      this.#forgetRoom();
      this.#room = { place: this.heap.allocate(bytes), bytes };
    }
    let next = this.#room.place;
    return sizes.map((size) => {
      const place = next;
      next += aligned(size);
      return place;
    });
  }

  /** Ends the threads and gives back the room. */
  dispose(): void {
    for (const helper of this.#helpers.splice(0)) helper.terminate();
    this.#forgetRoom();
  }

  #forgetRoom(): void {
    this.heap.module._free(this.#room.place);
    this.#room = { place: 0, bytes: 0 };
  }

  async #help(script: string, given: object): Promise<void> {
    const worker = new Worker(script, { name: "tabwright kernel" });
    this.#helpers.push(worker);
    await new Promise<void>((resolve, reject) => {
      worker.onmessage = () => resolve();
      worker.onerror = (event) => reject(new Error(`a thread of the kernel did not start: ${event.message}`));
      worker.postMessage(given);
    });
  }

  #words(from: number, count: number): Uint32Array {
    return new Uint32Array(this.heap.module.memory.buffer, this.#job + 4 * from, count);
  }
}

/** `bytes`, and up to where the next part may begin. */
export function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
