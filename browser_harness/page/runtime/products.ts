import type { CodedWeight } from "./coded_weights.ts";
import { aligned, type Kernel, PANEL } from "./kernel.ts";
import type { ExternalData } from "./onnx_model.ts";

const PANEL_ROW_BYTES = 4 * PANEL;
/** What a span of activations must be a multiple of, and the most that its sums have room for. */
const SPAN_STEP = 16;
const LONGEST_SPAN = 128;

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

/** Multiplies activations by weights that stay codes, all of them in ONNX Runtime's heap. */
export class Products {
  readonly #kernel: Kernel;
  readonly #owned: number[] = [];

  constructor(kernel: Kernel) {
    this.#kernel = kernel;
  }

  /** Brings a weight into the heap. */
  async pack(weight: CodedWeight, read: Reader): Promise<PackedWeight> {
    const { rows, columns, bits, block, scaleBytes } = weight;
    const span = spanOf(block);
    const panels = Math.ceil(rows / PANEL);
    const stored = [weight.codes, weight.scales, weight.zeroPoints] as const;
    const { heap, exports } = this.#kernel;
    const source = heap.allocate(stored.reduce((sum, { length }) => sum + aligned(length), 0));
    try {
      const [codes, scales, zeroPoints] = await this.#bring(stored, source, read);
      const points = heap.bytes.subarray(zeroPoints, zeroPoints + weight.zeroPoints.length);
      const zeros = points.some((octet) => octet !== (bits === 4 ? 0x88 : 0x80));
      const panelBytes = exports.panelBytes(columns, bits, span, zeros);
      const packed = { rows, columns, bits, span, zeros, place: this.#own(panels * panelBytes) };
      for (let panel = 0; panel < panels; panel++) {
        const row = panel * PANEL;
        const before = row * (columns / block);
        exports.pack(
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
    const { exports } = this.#kernel;
    let rounded: PackedWeight | undefined;
    for (const [weight, y] of weights) {
      const { place, zeros, bits, rows, columns, span } = weight;
      const room = this.#rooms(count, weight);
      const places = [x, room.rounded, room.steps, room.sums, room.floats, y];
      if (count === 1 && rounded?.span !== span) exports.round(x, columns, span, room.rounded, room.steps, room.sums);
      rounded = weight;
      exports.multiply(this.#kernel.job([place, Number(zeros), bits, rows, columns, span, count, ...places]));
    }
  }

  /** Gives back what the heap holds. */
  dispose(): void {
    for (const place of this.#owned.splice(0)) this.#kernel.heap.module._free(place);
  }

  /** Where the kernel may write: a single row is rounded to two numbers each, of more every thread makes a panel floats. */
  #rooms(count: number, { columns, span }: PackedWeight): { rounded: number; steps: number; sums: number; floats: number } {
    const { threads } = this.#kernel;
    const sizes = count === 1 ? [2 * 2 * columns, (4 * columns) / span, (2 * 4 * columns) / span] : [threads * columns * PANEL_ROW_BYTES];
    const [first, steps = 0, sums = 0] = this.#kernel.room(sizes) as [number, number?, number?];
    return { rounded: first, steps, sums, floats: first };
  }

  async #bring(stored: readonly ExternalData[], start: number, read: Reader): Promise<[number, number, number]> {
    const places: number[] = [];
    let next = start;
    for (const data of stored) {
      places.push(next);
      await this.#kernel.heap.write(read(data), next);
      next += aligned(data.length);
    }
    return places as [number, number, number];
  }

  #own(bytes: number): number {
    const place = this.#kernel.heap.allocate(bytes);
    this.#owned.push(place);
    return place;
  }
}

/** The longest run of columns that divides a block and has room for its sums. */
function spanOf(block: number): number {
  for (let span = Math.min(block, LONGEST_SPAN); ; span -= SPAN_STEP) {
    if (block % span === 0) return span;
  }
}
