import { Cache } from "./cache.ts";
import { reason, TabwrightError } from "./errors.ts";
import type { Logits } from "./forward.ts";
import { MAP_READ_MODE, USAGE } from "./gpu_usage.ts";
import type { Loss } from "./loss.ts";
import { ort } from "./ort.ts";
import type { State } from "./schema.ts";

/** A recording's name that asks for none. */
const UNRECORDED = "-1";
/** The decode step's recording: a prompt's step goes by its size, and one of a single token is another step. */
const DECODE = "decode";

type RecordingKey = number | typeof DECODE;

interface Recording {
  readonly id: string;
  readonly feeds: Record<string, ort.Tensor>;
  readonly fetches: Record<string, ort.Tensor>;
}

/** A small tensor of the GPU. */
interface Cell {
  readonly buffer: GPUBuffer;
  readonly tensor: ort.Tensor;
}

/**
 * The resident graph: states, lengths and the next token stay in buffers of the GPU, and a
 * step of one size is recorded once and then replayed.
 *
 * Every method that runs it must have ended before the next is called; results are there
 * for whatever is submitted to the GPU's queue after it.
 */
export class Resident {
  /** The token chosen last, int64 [1, 1]: what {@link decode} feeds and then overwrites. */
  readonly next: GPUBuffer;
  /** Logits that it was chosen from, float32 [vocabulary]. */
  readonly logits: GPUBuffer;
  readonly cache: Cache;
  readonly #session: ort.InferenceSession;
  readonly #device: GPUDevice;
  readonly #loss: Loss;
  readonly #vocabulary: number;
  readonly #cells: Record<"next" | "logits" | "last" | "total" | "first" | "row", Cell>;
  readonly #chunks = new Map<number, Cell>();
  #recordings = new Map<RecordingKey, Recording>();
  #recorded = 0;

  constructor(
    session: ort.InferenceSession,
    device: GPUDevice,
    loss: Loss,
    states: readonly State[],
    vocabulary: number,
  ) {
    this.#session = session;
    this.#device = device;
    this.#loss = loss;
    this.#vocabulary = vocabulary;
    this.cache = new Cache(device, states);
    this.#cells = {
      next: this.#cell("int64", [1, 1]),
      logits: this.#cell("float32", [1, 1, vocabulary]),
      last: this.#cell("int32", [1]),
      total: this.#cell("int32", [1]),
      first: this.#cell("int64", [1]),
      row: this.#cell("int64", [1]),
    };
    this.next = this.#cells.next.buffer;
    this.logits = this.#cells.logits.buffer;
  }

  /**
   * Makes room for `capacity` positions, keeping the first `used`; steps are recorded anew.
   *
   * @throws TabwrightError `context-full` when the GPU has no memory for it.
   */
  async grow(capacity: number, used: number): Promise<void> {
    await this.cache.grow(capacity, used);
    this.#recordings = new Map();
  }

  /**
   * Feeds `tokens` at `position`, at most `chunk` of them, and chooses the one that follows.
   * What is missing to a whole chunk is fed as token 0: it comes after all that is asked
   * for, and the cache's rows that it wrote are overwritten by those positions' own tokens.
   */
  async prefill(tokens: readonly number[], position: number, chunk: number): Promise<void> {
    const ids = this.#chunks.get(chunk) ?? this.#cell("int64", [1, chunk]);
    this.#chunks.set(chunk, ids);
    const padded = new BigInt64Array(chunk);
    tokens.forEach((token, index) => (padded[index] = BigInt(token)));
    this.#write(ids, padded);
    this.#write(this.#cells.row, BigInt64Array.of(BigInt(tokens.length - 1)));
    this.#tellLength(position + chunk);
    await this.#replay(chunk, ids, this.#cells.row);
  }

  /** Feeds the token chosen last, at `position`, and chooses the one that follows. */
  async decode(position: number): Promise<void> {
    if (!this.#recordings.has(DECODE)) await this.recordDecode(position);
    this.#tellLength(position + 1);
    await this.#replay(DECODE, this.#cells.next, this.#cells.first);
  }

  /**
   * Records {@link decode}, of which nothing remains but in the cache at `position`.
   *
   * @throws TabwrightError `run-failed` where runs cannot be recorded.
   */
  async recordDecode(position: number): Promise<void> {
    // The run that records is run twice, and the second time feeds what the first chose.
    const fed = this.#cell("int64", [1, 1]);
    this.#copy(this.#cells.next, fed);
    this.#tellLength(position + 1);
    await this.#replay(DECODE, this.#cells.next, this.#cells.first);
    this.#copy(fed, this.#cells.next);
    fed.buffer.destroy();
  }

  /** Puts `token` in the place of the one chosen last. */
  choose(token: number): void {
    this.#write(this.#cells.next, BigInt64Array.of(BigInt(token)));
  }

  /** The logits that the last token was chosen from, float32 [vocabulary]. */
  async readLogits(): Promise<Float32Array> {
    return new Float32Array(await this.#read(this.#cells.logits));
  }

  /** The logits of each of `tokens`, fed at `position`. */
  async score(tokens: readonly number[], position: number): Promise<Logits> {
    const rows = tokens.length;
    this.#tellLength(position + rows);
    const logits = this.#cell("float32", [1, rows, this.#vocabulary]);
    const chosen = this.#cell("int64", [1, rows]);
    try {
      await this.#run({
        id: UNRECORDED,
        feeds: {
          ...this.#common(),
          input_ids: new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [1, rows]),
          kept_rows: new ort.Tensor("int64", BigInt64Array.from({ length: rows }, (_, row) => BigInt(row)), [rows]),
        },
        fetches: { ...this.cache.tensors("output"), logits: logits.tensor, next_ids: chosen.tensor },
      });
      const data = new Float32Array(await this.#read(logits));
      return { rows, vocabulary: this.#vocabulary, data };
    } finally {
      logits.buffer.destroy();
      chosen.buffer.destroy();
    }
  }

  dispose(): void {
    for (const { buffer } of [...Object.values(this.#cells), ...this.#chunks.values()]) buffer.destroy();
    this.cache.dispose();
  }

  async #replay(key: RecordingKey, ids: Cell, row: Cell): Promise<void> {
    const known = this.#recordings.get(key);
    if (known) return await this.#run(known);
    const { next, logits } = this.#cells;
    const made: Recording = {
      id: `${++this.#recorded}`,
      feeds: { ...this.#common(), input_ids: ids.tensor, kept_rows: row.tensor },
      fetches: { ...this.cache.tensors("output"), logits: logits.tensor, next_ids: next.tensor },
    };
    await this.#run(made);
    this.#recordings.set(key, made);
  }

  async #run({ id, feeds, fetches }: Recording): Promise<void> {
    try {
      await this.#loss.guard(this.#session.run(feeds, fetches, { extra: { gpu_graph_id: id } }));
    } catch (error) {
      if (error instanceof TabwrightError) throw error;
      throw new TabwrightError("run-failed", `ONNX Runtime failed: ${reason(error)}`, error);
    }
  }

  #common(): Record<string, ort.Tensor> {
    const { last, total } = this.#cells;
    return { ...this.cache.tensors("input"), seqlens_k: last.tensor, total_sequence_length: total.tensor };
  }

  /** The lengths that attention counts with: the last position, and how many there are. */
  #tellLength(total: number): void {
    this.#write(this.#cells.last, Int32Array.of(total - 1));
    this.#write(this.#cells.total, Int32Array.of(total));
  }

  #cell(dataType: "int64" | "int32" | "float32", dims: readonly number[]): Cell {
    const values = dims.reduce((product, size) => product * size, 1);
    const buffer = this.#device.createBuffer({
      label: "loop",
      size: values * (dataType === "int64" ? 8 : 4),
      usage: USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST,
    });
    return { buffer, tensor: ort.Tensor.fromGpuBuffer(buffer, { dataType, dims }) };
  }

  #write(cell: Cell, values: BigInt64Array<ArrayBuffer> | Int32Array<ArrayBuffer>): void {
    this.#device.queue.writeBuffer(cell.buffer, 0, values);
  }

  #copy(from: Cell, to: Cell): void {
    const encoder = this.#device.createCommandEncoder();
    encoder.copyBufferToBuffer(from.buffer, 0, to.buffer, 0, from.buffer.size);
    this.#device.queue.submit([encoder.finish()]);
  }

  async #read(cell: Cell): Promise<ArrayBuffer> {
    const { size } = cell.buffer;
    const staging = this.#device.createBuffer({ size, usage: USAGE.MAP_READ | USAGE.COPY_DST });
    try {
      const encoder = this.#device.createCommandEncoder();
      encoder.copyBufferToBuffer(cell.buffer, 0, staging, 0, size);
      this.#device.queue.submit([encoder.finish()]);
      await this.#loss.guard(staging.mapAsync(MAP_READ_MODE));
      return staging.getMappedRange().slice(0);
    } finally {
      staging.destroy();
    }
  }
}
