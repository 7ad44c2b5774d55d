import { TabwrightError } from "./errors.ts";
import { USAGE } from "./gpu_usage.ts";
import { ort } from "./ort.ts";
import type { State } from "./schema.ts";

/**
 * The states of one text on the GPU: a buffer each, which a step reads and writes in place.
 * It holds `capacity` positions and grows by copying to larger buffers.
 */
export class Cache {
  readonly #device: GPUDevice;
  readonly #states: readonly State[];
  #buffers: GPUBuffer[] = [];
  #capacity = 0;

  constructor(device: GPUDevice, states: readonly State[]) {
    this.#device = device;
    this.#states = states;
  }

  /** Positions that there is room for. */
  get capacity(): number {
    return this.#capacity;
  }

  /** The bytes that a position takes. */
  get bytesPerPosition(): number {
    return bytesPerPosition(this.#states);
  }

  /** Positions that the device's largest buffer can hold. */
  get most(): number {
    const { maxBufferSize, maxStorageBufferBindingSize } = this.#device.limits;
    const widest = Math.max(...this.#states.map((state) => sizeOf(state, 1)));
    return Math.floor(Math.min(maxBufferSize, maxStorageBufferBindingSize) / widest);
  }

  /**
   * Makes room for `capacity` positions. The first `used` of them are kept.
   *
   * @throws TabwrightError `context-full` when the GPU has no memory for it; the cache
   *   is then as it was.
   */
  async grow(capacity: number, used: number): Promise<void> {
    this.#device.pushErrorScope("out-of-memory");
    const grown = this.#states.map((state) =>
      this.#device.createBuffer({
        label: state.input,
        size: sizeOf(state, capacity),
        usage: USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST,
      }),
    );
    if (await this.#device.popErrorScope()) {
      for (const buffer of grown) buffer.destroy();
      throw new TabwrightError("context-full", `the GPU has no memory for a context of ${capacity} tokens`);
    }
    if (used > 0) this.#copy(grown, capacity, used);
    this.dispose();
    this.#buffers = grown;
    this.#capacity = capacity;
  }

  /** The buffers as tensors, by the names of the inputs or of the outputs that they are. */
  tensors(end: "input" | "output"): Record<string, ort.Tensor> {
    return Object.fromEntries(
      this.#states.map((state, index) => [
        state[end],
        ort.Tensor.fromGpuBuffer(this.#buffers[index] as GPUBuffer, {
          dataType: state.dtype,
          dims: dimsOf(state, this.#capacity),
        }),
      ]),
    );
  }

  dispose(): void {
    for (const buffer of this.#buffers) buffer.destroy();
    this.#buffers = [];
    this.#capacity = 0;
  }

  /** Rows of positions lie one after the other within each head: every head is a copy. */
  #copy(grown: readonly GPUBuffer[], capacity: number, used: number): void {
    const encoder = this.#device.createCommandEncoder();
    this.#states.forEach((state, index) => {
      const heads = rowsBefore(state);
      const from = sizeOf(state, this.#capacity) / heads;
      const to = sizeOf(state, capacity) / heads;
      const kept = sizeOf(state, used) / heads;
      for (let head = 0; head < heads; head++) {
        encoder.copyBufferToBuffer(
          this.#buffers[index] as GPUBuffer,
          head * from,
          grown[index] as GPUBuffer,
          head * to,
          kept,
        );
      }
    });
    this.#device.queue.submit([encoder.finish()]);
  }
}

/** The bytes that a position takes in all `states`; one of a fixed size takes the same for any text. */
export function bytesPerPosition(states: readonly State[]): number {
  const growing = states.filter(({ shape }) => shape.includes("past_sequence_length"));
  return growing.reduce((sum, state) => sum + sizeOf(state, 1), 0);
}

/**
 * How many positions of `positionBytes` each a cache of `budgetBytes` holds, in whole steps of `step`.
 *
 * @throws TabwrightError `bad-input` when that is not one step.
 */
export function positionsWithin(budgetBytes: number, positionBytes: number, step: number): number {
  const positions = Math.floor(budgetBytes / positionBytes / step) * step;
  if (positions >= step) return positions;
  const least = `${step * positionBytes} bytes are needed, for a step of ${step}`;
  throw new TabwrightError("bad-input", `cacheBudgetBytes is ${budgetBytes}: ${least}`);
}

function dimsOf(state: State, capacity: number): number[] {
  return state.shape.map((axis) =>
    axis === "past_sequence_length" ? capacity : axis === "batch_size" ? 1 : axis,
  );
}

function sizeOf(state: State, capacity: number): number {
  const values = dimsOf(state, capacity).reduce((product, size) => product * size, 1);
  return values * (state.dtype === "float16" ? 2 : 4);
}

/** How many runs of positions a state has: the product of the axes before theirs. */
function rowsBefore(state: State): number {
  const axis = state.shape.indexOf("past_sequence_length");
  return dimsOf(state, 1).slice(0, axis).reduce((product, size) => product * size, 1);
}
