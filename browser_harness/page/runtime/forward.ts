import { reason, TabwrightError } from "./errors.ts";
import type { Runner, Value } from "./heap_session.ts";
import type { Loss } from "./loss.ts";
import { ort } from "./ort.ts";
import type { State } from "./schema.ts";

/** Logits of the last `rows` positions fed: float32 [rows, vocabulary], row by row. */
export interface Logits {
  readonly rows: number;
  readonly vocabulary: number;
  readonly data: Float32Array;
}

/**
 * The conventional graph, and what it hands from one call to the next as the manifest
 * describes it. Inputs are fed by name, so a graph may leave out what it does not use;
 * an input of another name is refused.
 */
export class Forward {
  readonly #session: Runner;
  readonly #states: readonly State[];
  readonly #loss: Loss | undefined;
  /** By the input's name; empty until the first step. */
  #past = new Map<string, Value>();
  #length = 0;

  /** @throws TabwrightError `graph-unsupported` naming the input that is not known. */
  constructor(
    session: Runner,
    states: readonly State[],
    loss: Loss | undefined,
  ) {
    const known = ["input_ids", "attention_mask", "num_logits_to_keep", "position_ids"];
    known.push(...states.map(({ input }) => input));
    const unknown = session.inputNames.find((name) => !known.includes(name));
    if (unknown !== undefined) {
      throw new TabwrightError("graph-unsupported", `the graph wants '${unknown}', which is not known`);
    }
    this.#session = session;
    this.#states = states;
    this.#loss = loss;
  }

  /** Positions fed since the start or the last {@link reset}. */
  get length(): number {
    return this.#length;
  }

  /** Forgets all positions and frees their memory. */
  reset(): void {
    for (const tensor of this.#past.values()) tensor.dispose();
    this.#past = new Map();
    this.#length = 0;
  }

  /**
   * Feeds `tokens` after those that were fed before.
   *
   * @param keep how many of the last positions to return logits of; 0 means all.
   * @throws TabwrightError `run-failed` or `device-lost`; the states are then unusable
   *   until {@link reset}.
   */
  async step(tokens: readonly number[], keep: number): Promise<Logits> {
    const outputs = await this.#run(this.#feeds(tokens, keep));
    const next = new Map(
      this.#states.map(({ input, output }) => [input, outputs[output] as Value]),
    );
    // A cache may be the one of before.
    const kept = new Set(next.values());
    for (const value of this.#past.values()) if (!kept.has(value)) value.dispose();
    this.#past = next;
    this.#length += tokens.length;

    const logits = outputs["logits"] as ort.Tensor;
    const vocabulary = logits.dims.at(-1) as number;
    const rows = keep === 0 ? tokens.length : keep;
    // A graph that knows no num_logits_to_keep returns all rows.
    const data = toFloat32(logits).subarray(-rows * vocabulary);
    return { rows, vocabulary, data };
  }

  async #run(feeds: Record<string, Value>): Promise<Readonly<Record<string, Value>>> {
    try {
      const run = this.#session.run(feeds);
      return await (this.#loss?.guard(run) ?? run);
    } catch (error) {
      if (error instanceof TabwrightError) throw error;
      throw new TabwrightError("run-failed", `ONNX Runtime failed: ${reason(error)}`, error);
    }
  }

  #feeds(tokens: readonly number[], keep: number): Record<string, Value> {
    const total = this.#length + tokens.length;
    const make: Record<string, () => Value> = {
      ...Object.fromEntries(
        this.#states.map((state) => [state.input, () => this.#past.get(state.input) ?? zeros(state)]),
      ),
      input_ids: () => int64(tokens, [1, tokens.length]),
      attention_mask: () => new ort.Tensor("int64", new BigInt64Array(total).fill(1n), [1, total]),
      num_logits_to_keep: () => int64([keep], []),
      position_ids: () => int64(Array.from(tokens, (_, i) => this.#length + i), [1, tokens.length]),
    };
    return Object.fromEntries(
      this.#session.inputNames.map((name) => [name, (make[name] as () => Value)()]),
    );
  }
}

/** Sizes of a state's symbolic axes before anything is fed. */
const AT_FIRST = { batch_size: 1, past_sequence_length: 0 } as const;

/** What the first call gets for `state`. */
function zeros(state: State): ort.Tensor {
  const dims = state.shape.map((axis) => (typeof axis === "number" ? axis : AT_FIRST[axis]));
  const count = dims.reduce((product, size) => product * size, 1);
  return state.dtype === "float16"
    ? new ort.Tensor("float16", new Uint16Array(count), dims)
    : new ort.Tensor("float32", new Float32Array(count), dims);
}

function int64(values: readonly number[], dims: readonly number[]): ort.Tensor {
  return new ort.Tensor("int64", BigInt64Array.from(values, BigInt), dims);
}

function toFloat32(tensor: ort.Tensor): Float32Array {
  // Browsers with JSPI have Float16Array, which is what ORT then returns.
  return tensor.data instanceof Float32Array
    ? tensor.data
    : Float32Array.from(tensor.data as Iterable<number>);
}
