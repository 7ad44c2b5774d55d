/// <reference path="./wasm.d.ts" />
import kernel from "../dist/kernel/dequantise.wasm";

import type { FoldedWeight } from "./folded_weights.ts";
import type { ExternalData } from "./onnx_model.ts";

/** What `kernel/dequantise.ts` exports. */
interface Kernel {
  readonly memory: WebAssembly.Memory;
  start(): number;
  dequantise(
    codes: number,
    scales: number,
    zeroPoints: number,
    out: number,
    rows: number,
    columns: number,
    from: number,
    to: number,
    bits: number,
    block: number,
    scaleBytes: number,
  ): void;
}

/** The bytes of external data, in pieces. */
export type Reader = (data: ExternalData) => AsyncIterable<Uint8Array>;

const PAGE_BYTES = 1 << 16;
const ALIGNMENT = 16;
/** Columns that the kernel works on at once. */
export const TOGETHER = 16;
/** Floats that are made before they are handed on: they should stay in the processor's cache. */
const STRIP_BYTES = 1 << 18;

/** Makes floats of codes, by a kernel in WebAssembly with a memory of its own. */
export class Dequantiser {
  readonly #kernel: Kernel;

  private constructor(exports: Kernel) {
    this.#kernel = exports;
  }

  static async make(): Promise<Dequantiser> {
    const { instance } = await WebAssembly.instantiate(kernel);
    return new Dequantiser(instance.exports as unknown as Kernel);
  }

  /**
   * The floats of `weight`, [columns, rows], a strip of columns after the other. A strip is a view
   * that holds until the next one is asked for.
   */
  async *strips(weight: FoldedWeight, read: Reader): AsyncGenerator<Uint8Array, void> {
    const { rows, columns, bits, block, scaleBytes } = weight;
    const strip = TOGETHER * Math.max(1, Math.floor(STRIP_BYTES / (4 * rows * TOGETHER)));
    const stored = [weight.codes, weight.scales, weight.zeroPoints] as const;
    const [codes, scales, zeroPoints, out] = this.#room(stored.map(({ length }) => length), 4 * rows * strip);
    const starts = [codes, scales, zeroPoints] as const;
    for (const [index, data] of stored.entries()) await this.#bring(read(data), starts[index] as number);
    for (let from = 0; from < columns; from += strip) {
      const to = Math.min(columns, from + strip);
      this.#kernel.dequantise(codes, scales, zeroPoints, out, rows, columns, from, to, bits, block, scaleBytes);
      yield new Uint8Array(this.#kernel.memory.buffer, out, 4 * rows * (to - from));
    }
  }

  /** Where things of these lengths begin in the kernel's memory, which is made large enough. */
  #room(inputs: readonly number[], output: number): [number, number, number, number] {
    const { memory } = this.#kernel;
    let end = this.#kernel.start();
    const starts = [...inputs, output].map((length) => {
      const start = Math.ceil(end / ALIGNMENT) * ALIGNMENT;
      end = start + length;
      return start;
    });
    const missing = end - memory.buffer.byteLength;
    if (missing > 0) memory.grow(Math.ceil(missing / PAGE_BYTES));
    return starts as [number, number, number, number];
  }

  async #bring(pieces: AsyncIterable<Uint8Array>, start: number): Promise<void> {
    let at = start;
    for await (const piece of pieces) {
      new Uint8Array(this.#kernel.memory.buffer).set(piece, at);
      at += piece.length;
    }
  }
}
