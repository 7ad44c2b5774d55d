/// <reference path="./wasm.d.ts" />
import kernel from "../dist/kernel/product.wasm";

import type { CodedWeight } from "./coded_weights.ts";
import type { Heap } from "./heap.ts";
import type { ExternalData } from "./onnx_model.ts";

/** What is used of what `kernel/` exports. */
interface Kernel {
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
}

/** Rows that the kernel works on at once. */
const PANEL = 16;
const PANEL_ROW_BYTES = 4 * PANEL;
/** What a span of activations must be a multiple of, and the most that its sums have room for. */
const SPAN_STEP = 16;
const LONGEST_SPAN = 128;
const ALIGNMENT = 64;
/** Words of a job, in the order of `kernel/product.ts`; the first three are the threads'. */
const JOB_WORDS = 16;
const FIRST_WORD = 3;
const NONE_MAY_JOIN = 2 ** 32 - 1;

/** The bytes of external data, in pieces. */
export type Reader = (data: ExternalData) => AsyncIterable<Uint8Array>;

/** A weight in the heap, in the order in which the kernel reads it. */
export interface PackedWeight {
  readonly rows: number;
  readonly columns: number;
  readonly bits: 4 | 8;
  /** Columns whose activations share a scale. */
  readonly span: number;
  readonly place: number;
  /** Whether a zero point is not the middle of what codes may be. */
  readonly zeros: boolean;
}

/** What each helping thread runs: the kernel on the same memory, for as long as it is let. */
const HELPER = `onmessage = ({ data: { kernel, memory, job, thread } }) => {
  const { exports } = new WebAssembly.Instance(kernel, { env: { memory } });
  postMessage("ready");
  exports.serve(job, thread);
};`;

/** Multiplies activations by weights that stay codes, all of them in ONNX Runtime's heap. */
export class Products {
  readonly #heap: Heap;
  readonly #kernel: Kernel;
  readonly #helpers: Worker[] = [];
  readonly #owned: number[] = [];
  readonly #job: number;
  readonly #threads: number;
  /** Room for what the kernel makes of activations or of panels: where it begins, and how long it is. */
  #room = { place: 0, bytes: 0 };

  private constructor(heap: Heap, exports: Kernel, threads: number) {
    this.#heap = heap;
    this.#kernel = exports;
    this.#threads = threads;
    // Never given back: a thread that is ended may look at it for a while.
    this.#job = heap.allocate(4 * JOB_WORDS);
    this.#words(this.#job, JOB_WORDS).fill(0).fill(NONE_MAY_JOIN, 1, 2);
  }

  /** @param threads how many multiply, this one among them. */
  static async open(heap: Heap, threads: number): Promise<Products> {
    const module = await WebAssembly.compile(kernel);
    const { memory } = heap.module;
    const { exports } = await WebAssembly.instantiate(module, { env: { memory } });
    const products = new Products(heap, exports as unknown as Kernel, threads);
    try {
      const script = URL.createObjectURL(new Blob([HELPER], { type: "text/javascript" }));
      const starting = Array.from({ length: threads - 1 }, (_, index) =>
        products.#help(script, { kernel: module, memory, job: products.#job, thread: index + 1 }),
      );
      await Promise.all(starting).finally(() => URL.revokeObjectURL(script));
      return products;
    } catch (error) {
      products.dispose();
      throw error;
    }
  }

  /** Brings a weight into the heap. */
  async pack(weight: CodedWeight, read: Reader): Promise<PackedWeight> {
    const { rows, columns, bits, block, scaleBytes } = weight;
    const span = spanOf(block);
    const panels = Math.ceil(rows / PANEL);
    const stored = [weight.codes, weight.scales, weight.zeroPoints] as const;
    const heap = this.#heap;
    const source = heap.allocate(stored.reduce((sum, { length }) => sum + aligned(length), 0));
    try {
      const [codes, scales, zeroPoints] = await this.#bring(stored, source, read);
      const points = heap.bytes.subarray(zeroPoints, zeroPoints + weight.zeroPoints.length);
      const zeros = points.some((octet) => octet !== (bits === 4 ? 0x88 : 0x80));
      const panelBytes = this.#kernel.panelBytes(columns, bits, span, zeros);
      const packed = { rows, columns, bits, span, zeros, place: this.#own(panels * panelBytes) };
      for (let panel = 0; panel < panels; panel++) {
        const row = panel * PANEL;
        const before = row * (columns / block);
        this.#kernel.pack(
          codes + (row * columns * bits) / 8,
          scales + before * scaleBytes,
          scaleBytes,
          zeroPoints + (before * bits) / 8,
          zeros,
          Math.min(PANEL, rows - row),
          columns,
          bits,
          block,
          span,
          packed.place + panel * panelBytes,
        );
      }
      return packed;
    } finally {
      heap.module._free(source);
    }
  }

  /**
   * Multiplies `count` rows of floats at `x` by each of `weights`, which have as many columns.
   *
   * @param weights with the places of their products, float32 [count, rows].
   */
  multiply(x: number, count: number, weights: readonly (readonly [PackedWeight, number])[]): void {
    let rounded: PackedWeight | undefined;
    for (const [weight, y] of weights) {
      const { place, zeros, bits, rows, columns, span } = weight;
      const room = this.#rooms(count, weight);
      const places = [x, room.rounded, room.steps, room.sums, room.floats, y];
      if (count === 1 && rounded?.span !== span) this.#kernel.round(x, columns, span, room.rounded, room.steps, room.sums);
      rounded = weight;
      this.#words(this.#job, JOB_WORDS).set([place, Number(zeros), bits, rows, columns, span, count, ...places], FIRST_WORD);
      this.#kernel.multiply(this.#job);
    }
  }

  /** Ends the threads and gives back what the heap holds. */
  dispose(): void {
    for (const helper of this.#helpers.splice(0)) helper.terminate();
    for (const place of this.#owned.splice(0)) this.#heap.module._free(place);
    this.#forgetRoom();
  }

  /** Where the kernel may write: a single row is rounded to two numbers each, of more every thread makes a panel floats. */
  #rooms(count: number, { columns, span }: PackedWeight): { rounded: number; steps: number; sums: number; floats: number } {
    const steps = aligned(2 * 2 * columns);
    const sums = steps + aligned((4 * columns) / span);
    const bytes = count === 1 ? sums + aligned((2 * 4 * columns) / span) : this.#threads * columns * PANEL_ROW_BYTES;
    if (bytes > this.#room.bytes) {
      this.#forgetRoom();
      this.#room = { place: this.#heap.allocate(bytes), bytes };
    }
    const { place } = this.#room;
    return { rounded: place, steps: place + steps, sums: place + sums, floats: place };
  }

  #forgetRoom(): void {
    this.#heap.module._free(this.#room.place);
    this.#room = { place: 0, bytes: 0 };
  }

  async #bring(stored: readonly ExternalData[], start: number, read: Reader): Promise<[number, number, number]> {
    const places: number[] = [];
    let next = start;
    for (const data of stored) {
      places.push(next);
      await this.#heap.write(read(data), next);
      next += aligned(data.length);
    }
    return places as [number, number, number];
  }

  async #help(script: string, given: object): Promise<void> {
    const worker = new Worker(script, { name: "tabwright products" });
    this.#helpers.push(worker);
    await new Promise<void>((resolve, reject) => {
      worker.onmessage = () => resolve();
      worker.onerror = (event) => reject(new Error(`a thread for products did not start: ${event.message}`));
      worker.postMessage(given);
    });
  }

  #own(bytes: number): number {
    const place = this.#heap.allocate(bytes);
    this.#owned.push(place);
    return place;
  }

  #words(place: number, count: number): Uint32Array {
    return new Uint32Array(this.#heap.module.memory.buffer, place, count);
  }
}

/** The longest run of columns that divides a block and has room for its sums. */
function spanOf(block: number): number {
  for (let span = Math.min(block, LONGEST_SPAN); ; span -= SPAN_STEP) {
    if (block % span === 0) return span;
  }
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
}
