import { attend, type Caches, newCaches } from "./attending.ts";
import type { Attention } from "./attention_nodes.ts";
import type { CodedWeight } from "./coded_weights.ts";
import { reason, TabwrightError, throwIfAborted } from "./errors.ts";
import { Heap, HeapTensor, type Look } from "./heap.ts";
import { HeapCache } from "./heap_cache.ts";
import { HeapValues } from "./heap_values.ts";
import { Kernel } from "./kernel.ts";
import { DATA, type ExternalData, type Tensor } from "./onnx_model.ts";
import { createSession, ort } from "./ort.ts";
import { type PackedWeight, Products } from "./products.ts";
import { type AttentionStage, endsOf, type GraphStage, type ProductStage, type Staged, staged } from "./stages.ts";
import type { SteadyBlob } from "./steady.ts";

/** What a session takes and gives. */
export type Value = ort.Tensor | HeapTensor | HeapCache;

/** What is run: a session, or what stands for one. */
export interface Runner {
  readonly inputNames: readonly string[];
  run(feeds: Readonly<Record<string, Value>>): Promise<Readonly<Record<string, Value>>>;
}

/** What {@link HeapSession.open} needs of a target. */
export interface HeapSessionFiles {
  /** A ModelProto. */
  readonly graph: Uint8Array;
  /** By the location that the graph names. */
  readonly shards: ReadonlyMap<string, SteadyBlob>;
}

/** How a session on the CPU is run. */
export interface HeapSessionUse {
  readonly sessionConfig: Readonly<Record<string, string>>;
  /** Outputs that stay in the heap. */
  readonly kept: Iterable<string>;
  readonly threads: number;
  readonly signal: AbortSignal | undefined;
  /** Hears of what ONNX Runtime has to do that the page does better. */
  readonly notes: string[];
}

/** Types of inputs, by onnxruntime-web's names. */
const TYPES: ReadonlyMap<string, number> = new Map([
  ["float32", DATA.FLOAT],
  ["int64", DATA.INT64],
]);

/** A stage as the heap knows it. */
interface Step {
  run(values: HeapValues): Promise<void> | void;
  /** Values that no later step reads. */
  readonly ends: readonly string[];
}

/**
 * A session on the CPU: the page's own kernel for products and attention, and ONNX Runtime's sessions for what
 * lies between. All that passes between them stays in ONNX Runtime's heap. One run at a time.
 *
 * onnxruntime-web copies every output to an array of JavaScript's, and every input from one,
 * multiplies by codes by making floats of all of them, every time, and copies a cache to add to it.
 */
export class HeapSession implements Runner {
  readonly inputNames: readonly string[];
  readonly #outputNames: readonly string[];
  readonly #kept: ReadonlySet<string>;
  readonly #heap: Heap;
  #kernel: Kernel | undefined;
  #products: Products | undefined;
  /** By the text of their models. */
  readonly #sessions = new Map<string, ort.InferenceSession>();
  readonly #constants = new Map<string, HeapTensor>();
  readonly #allocated: number[] = [];
  readonly #steps: Step[] = [];

  private constructor(heap: Heap, { inputs, outputs }: Staged, kept: Iterable<string>) {
    this.#heap = heap;
    this.inputNames = inputs;
    this.#outputNames = outputs;
    this.#kept = new Set(kept);
  }

  /**
   * Opens a session, which holds all weights when it is there.
   *
   * @throws TabwrightError `session-failed`, `aborted`; nothing of it is left then.
   */
  static async open(files: HeapSessionFiles, use: HeapSessionUse): Promise<HeapSession> {
    const parts = cut(files.graph);
    const { weights, attentions } = parts.left;
    if (weights > 0) use.notes.push(`ONNX Runtime makes the floats of ${weights} weights itself, which takes longer and more memory`);
    if (attentions > 0) use.notes.push(`ONNX Runtime attends in ${attentions} layers itself, which takes longer`);
    const session = new HeapSession(Heap.started(), parts, use.kept);
    try {
      await session.#fill(parts, files, use);
      return session;
    } catch (error) {
      await session.release();
      if (error instanceof TabwrightError) throw error;
      throw new TabwrightError("session-failed", `the weights cannot be brought: ${reason(error)}`, error);
    }
  }

  /**
   * Runs the graph. A cache is added to where it is, and handed back; of a run that fails it is of no more use.
   *
   * @throws Error with what ONNX Runtime says.
   */
  async run(feeds: Readonly<Record<string, Value>>): Promise<Record<string, Value>> {
    const values = new HeapValues(this.#constants);
    try {
      for (const name of this.inputNames) {
        const value = feeds[name] as Value;
        if (value instanceof HeapTensor || value instanceof HeapCache) values.lend(name, value);
        else values.add(name, this.#bring(value));
      }
      for (const step of this.#steps) {
        await step.run(values);
        for (const name of step.ends) values.end(name);
      }
      const kept = this.#outputNames.filter((name) => this.#kept.has(name));
      const read = this.#outputNames.filter((name) => !this.#kept.has(name));
      const results: [string, Value][] = read.map((name) => [name, this.#read(values.get(name))]);
      return Object.fromEntries([...results, ...kept.map((name) => [name, values.take(name)])]);
    } finally {
      values.dispose();
    }
  }

  /** Gives back the session and all that it holds. */
  async release(): Promise<void> {
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    for (const session of sessions) await session.release();
    this.#products?.dispose();
    this.#kernel?.dispose();
    for (const tensor of this.#constants.values()) tensor.dispose();
    this.#constants.clear();
    for (const place of this.#allocated.splice(0)) this.#heap.module._free(place);
  }

  async #fill(parts: Staged, { shards }: HeapSessionFiles, { sessionConfig, threads, signal }: HeapSessionUse): Promise<void> {
    const read = (data: ExternalData) => pieces(shards, data);
    for (const [name, tensor] of parts.constants) this.#constants.set(name, await this.#constant(tensor, read));
    const kernel = (this.#kernel = await Kernel.open(this.#heap, threads));
    const products = (this.#products = new Products(kernel));
    const packed = new Map<CodedWeight, PackedWeight>();
    for (const weight of parts.weights.toSorted((a, b) => inTheOrderOfFiles(a.codes, b.codes))) {
      throwIfAborted(signal);
      packed.set(weight, await products.pack(weight, read));
    }
    const ends = endsOf(parts);
    for (const [index, stage] of parts.stages.entries()) {
      throwIfAborted(signal);
      let run: Step["run"];
      if (stage.kind === "products") run = this.#productRun(stage, products, packed);
      else if (stage.kind === "attention") run = this.#attentionRun(stage, kernel);
      else {
        const key = latin1.decode(stage.model);
        const session = this.#sessions.get(key) ?? (await createSession({ graph: stage.model, shards }, undefined, sessionConfig));
        this.#sessions.set(key, session);
        run = this.#graphRun(stage, session);
      }
      this.#steps.push({ run, ends: ends[index] as string[] });
    }
  }

  /** Runs a stage's session. */
  #graphRun({ inputs, outputs }: GraphStage, session: ort.InferenceSession): (values: HeapValues) => Promise<void> {
    const heap = this.#heap;
    const { module } = heap;
    // The session's address in the heap, of which its public face says nothing.
    const { handler } = session as unknown as { handler?: { sessionId?: number } };
    const address = handler?.sessionId;
    if (typeof address !== "number") throw new Error("onnxruntime-web hides its session");
    const own = (place: number) => {
      this.#allocated.push(place);
      return place;
    };
    // Not on ONNX Runtime's stack, for a run is waited for, and others use that meanwhile.
    const inputNames = own(heap.names([...inputs.values()]));
    const outputNames = own(heap.names([...outputs.values()]));
    const givenAt = own(heap.allocate(module.PTR_SIZE * inputs.size));
    const madeAt = own(heap.allocate(module.PTR_SIZE * outputs.size));
    const given = [...inputs.keys()];
    const made = [...outputs.keys()];
    const unset = made.map(() => 0);
    return async (values) => {
      heap.setPointers(givenAt, given.map((name) => values.get(name).handle));
      // ONNX Runtime writes where there is no tensor yet.
      heap.setPointers(madeAt, unset);
      const code = await module._OrtRun(address, inputNames, givenAt, given.length, outputNames, made.length, madeAt, 0);
      if (code !== 0) throw heap.error();
      const handles = heap.pointers(madeAt, made.length);
      made.forEach((name, index) => values.add(name, this.#held(handles[index] as number)));
    };
  }

  /** Multiplies as a stage says, all weights of an input together. */
  #productRun(
    stage: ProductStage,
    products: Products,
    packed: ReadonlyMap<CodedWeight, PackedWeight>,
  ): (values: HeapValues) => void {
    const heap = this.#heap;
    const groups = [...Map.groupBy(stage.products, ({ input }) => input)];
    return (values) => {
      for (const [input, together] of groups) {
        const { data, dims } = heap.look(values.get(input));
        const outer = dims.slice(0, -1);
        const count = outer.reduce((product, axis) => product * axis, 1);
        const weights = together.map(({ weight, output }) => {
          const { tensor, place } = heap.room(DATA.FLOAT, 4 * count * weight.rows, [...outer, weight.rows]);
          values.add(output, tensor);
          return [packed.get(weight) as PackedWeight, place] as const;
        });
        products.multiply(data, count, weights);
      }
    };
  }

  /** Attends as a stage says. */
  #attentionRun({ attentions }: AttentionStage, kernel: Kernel): (values: HeapValues) => void {
    const constant = (name: string) => this.#heap.look(this.#constants.get(name) as HeapTensor);
    const all = attentions.map((attention) => [attention, attention.rotation?.map(constant)] as const);
    return (values) => {
      for (const [attention, rotation] of all) this.#attend(attention, rotation, kernel, values);
    };
  }

  #attend(attention: Attention, rotation: readonly Look[] | undefined, kernel: Kernel, values: HeapValues): void {
    const { output, past, present, heads, width } = attention;
    const look = (name: string) => this.#heap.look(values.get(name));
    const inputs = attention.inputs.map(look);
    const count = inputs[0]?.dims[1] as number;
    const [pastKeys, pastValues] = past.map((name) => values.cache(name));
    const given: Caches | undefined = pastKeys && pastValues && [pastKeys, pastValues];
    if (!given && past.some((name) => values.cache(name) !== undefined || look(name).dims[2] !== 0)) {
      throw new Error("what an attention goes on from is no cache of its own");
    }
    const caches = given ?? newCaches(kernel, attention);
    // Before anything can fail.
    present.forEach((name, index) => {
      const cache = caches[index] as HeapCache;
      if (given) values.lend(name, cache);
      else values.add(name, cache);
    });
    const { tensor, place } = this.#heap.room(DATA.FLOAT, 4 * count * heads * width, [1, count, heads * width]);
    values.add(output, tensor);
    const places = { inputs: inputs.map(({ data }) => data), rotation, output: place };
    attend(kernel, attention, caches, places, count);
  }

  async #constant(tensor: Tensor, read: (data: ExternalData) => AsyncIterable<Uint8Array>): Promise<HeapTensor> {
    const heap = this.#heap;
    const { raw, external, type, dims } = tensor;
    const bytes = external?.length ?? (raw as Uint8Array).length;
    const { tensor: made, place } = heap.room(type, bytes, dims);
    try {
      await heap.write(external ? read(external) : [raw as Uint8Array], place);
      return made;
    } catch (error) {
      made.dispose();
      throw error;
    }
  }

  #bring({ type: name, data, dims }: ort.Tensor): HeapTensor {
    const type = TYPES.get(name);
    if (type === undefined) throw new Error(`an input is ${name}, which no graph for the CPU takes`);
    const { buffer, byteOffset, byteLength } = data as Float32Array;
    const { tensor, place } = this.#heap.room(type, byteLength, dims);
    this.#heap.bytes.set(new Uint8Array(buffer, byteOffset, byteLength), place);
    return tensor;
  }

  #held(handle: number): HeapTensor {
    return new HeapTensor(handle, () => this.#heap.module._OrtReleaseTensor(handle));
  }

  /** A copy of `tensor`. */
  #read(tensor: HeapTensor): ort.Tensor {
    const { type, data, dims } = this.#heap.look(tensor);
    if (type !== DATA.FLOAT) throw new Error(`an output is of ONNX's type ${type}, not float32`);
    const size = dims.reduce((product, axis) => product * axis, 1);
    return new ort.Tensor("float32", new Float32Array(this.#heap.bytes.slice(data, data + 4 * size).buffer), dims);
  }
}

/** Bytes as text, by which models are told apart. */
const latin1 = new TextDecoder("latin1");

function cut(graph: Uint8Array): Staged {
  try {
    return staged(graph);
  } catch (error) {
    throw new TabwrightError("session-failed", `the graph cannot be read: ${reason(error)}`, error);
  }
}

function pieces(shards: ReadonlyMap<string, SteadyBlob>, { location, offset, length }: ExternalData): AsyncIterable<Uint8Array> {
  const shard = shards.get(location);
  if (!shard) throw new TabwrightError("session-failed", `the graph names '${location}', which is no shard of the target`);
  return shard.pieces(offset, offset + length);
}

/** So that each part of a file is read once. */
function inTheOrderOfFiles(a: ExternalData, b: ExternalData): number {
  return a.location === b.location ? a.offset - b.offset : a.location < b.location ? -1 : 1;
}
