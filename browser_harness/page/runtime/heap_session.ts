import { reason, TabwrightError } from "./errors.ts";
import { foldedWeightsAsInputs, type Rewritten } from "./folded_weights.ts";
import { Heap, HeapTensor, TYPES } from "./heap.ts";
import { type HeapWeights, makeHeapWeights } from "./heap_weights.ts";
import type { ExternalData } from "./onnx_model.ts";
import { createSession, ort } from "./ort.ts";
import type { SteadyBlob } from "./steady.ts";

/** What a session takes and gives. */
export type Value = ort.Tensor | HeapTensor;

/** What is run: a session, or what stands for one. */
export interface Runner {
  readonly inputNames: readonly string[];
  run(feeds: Readonly<Record<string, Value>>): Promise<Readonly<Record<string, Value>>>;
}

/** What {@link openHeapSession} needs of a target. */
export interface HeapSessionFiles {
  /** A ModelProto. */
  readonly graph: Uint8Array;
  /** By the location that the graph names. */
  readonly shards: ReadonlyMap<string, SteadyBlob>;
}

/**
 * Opens a session on the CPU that holds its weights as floats.
 *
 * @param kept outputs that stay in the heap.
 * @param notes hears of weights that ONNX Runtime has to fold.
 * @throws TabwrightError `session-failed`, `aborted`; nothing of it is left then.
 */
export async function openHeapSession(
  { graph, shards }: HeapSessionFiles,
  sessionConfig: Readonly<Record<string, string>>,
  kept: Iterable<string>,
  signal: AbortSignal | undefined,
  notes: string[],
): Promise<HeapSession> {
  const { model, weights, left } = rewritten(graph);
  if (left > 0) notes.push(`ONNX Runtime makes the floats of ${left} weights itself, which takes longer and more memory`);
  const session = await createSession({ graph: model, shards }, undefined, sessionConfig);
  let made: HeapWeights | undefined;
  try {
    const heap = Heap.started();
    made = await makeHeapWeights(heap, weights, (data) => read(shards, data), signal);
    return new HeapSession(heap, session, kept, made);
  } catch (error) {
    made?.dispose();
    await session.release();
    if (error instanceof TabwrightError) throw error;
    throw new TabwrightError("session-failed", `the weights cannot be made: ${reason(error)}`, error);
  }
}

function rewritten(graph: Uint8Array): Rewritten {
  try {
    return foldedWeightsAsInputs(graph);
  } catch (error) {
    throw new TabwrightError("session-failed", `the graph cannot be read: ${reason(error)}`, error);
  }
}

function read(shards: ReadonlyMap<string, SteadyBlob>, { location, offset, length }: ExternalData): AsyncIterable<Uint8Array> {
  const shard = shards.get(location);
  if (!shard) throw new TabwrightError("session-failed", `the graph names '${location}', which is no shard of the target`);
  return shard.pieces(offset, offset + length);
}

/**
 * A session on the CPU whose weights and `kept` outputs stay in ONNX Runtime's heap. One run at a time.
 *
 * onnxruntime-web copies every output to an array of JavaScript's, and every input from one. Of a
 * cache that is all of it, twice per token: for a thousand tokens of SmolLM2's some 90 MB, half of
 * them in pages that the browser has to zero first and to collect afterwards.
 */
export class HeapSession implements Runner {
  /** Inputs that a run is to bring: all but the weights. */
  readonly inputNames: readonly string[];
  readonly #outputNames: readonly string[];
  readonly #kept: ReadonlySet<string>;
  readonly #heap: Heap;
  readonly #session: ort.InferenceSession;
  readonly #weights: HeapWeights;
  readonly #address: number;
  /**
   * Where a run's arguments are: names, and pointers to tensors, of which those of the weights stay. Not on
   * ONNX Runtime's stack, for a run is waited for, and others use that meanwhile.
   */
  readonly #inputNamePointers: number;
  readonly #outputNamePointers: number;
  readonly #inputs: number;
  readonly #outputs: number;
  readonly #allocated: number[] = [];

  /** @throws TabwrightError `session-failed` where onnxruntime-web is not as it was when this was written. */
  constructor(heap: Heap, session: ort.InferenceSession, kept: Iterable<string>, weights: HeapWeights) {
    // The session's address in the heap, of which its public face says nothing.
    const { handler } = session as unknown as { handler?: { sessionId?: number } };
    if (typeof handler?.sessionId !== "number") {
      throw new TabwrightError("session-failed", "onnxruntime-web hides its session");
    }
    this.inputNames = session.inputNames.filter((name) => !weights.tensors.has(name));
    this.#outputNames = session.outputNames;
    this.#kept = new Set(kept);
    this.#heap = heap;
    this.#session = session;
    this.#weights = weights;
    this.#address = handler.sessionId;
    const pointers = heap.module.PTR_SIZE * session.inputNames.length;
    try {
      this.#inputNamePointers = this.#own(heap.names([...this.inputNames, ...weights.tensors.keys()]));
      this.#outputNamePointers = this.#own(heap.names(this.#outputNames));
      this.#inputs = this.#own(heap.allocate(pointers));
      this.#outputs = this.#own(heap.allocate(heap.module.PTR_SIZE * this.#outputNames.length));
    } catch (error) {
      this.#free();
      throw error;
    }
    const first = this.#inputs + heap.module.PTR_SIZE * this.inputNames.length;
    heap.setPointers(first, Array.from(weights.tensors.values(), ({ handle }) => handle));
  }

  /** @throws Error with what ONNX Runtime says. */
  async run(feeds: Readonly<Record<string, Value>>): Promise<Record<string, Value>> {
    const heap = this.#heap;
    const outputNames = this.#outputNames;
    const brought: HeapTensor[] = [];
    const made: HeapTensor[] = [];
    try {
      const inputs = this.inputNames.map((name) => {
        const value = feeds[name] as Value;
        if (value instanceof HeapTensor) return value;
        const tensor = this.#bring(value);
        brought.push(tensor);
        return tensor;
      });
      heap.setPointers(this.#inputs, inputs.map(({ handle }) => handle));
      // ONNX Runtime writes where there is no tensor yet.
      heap.setPointers(this.#outputs, outputNames.map(() => 0));
      const code = await heap.module._OrtRun(
        this.#address,
        this.#inputNamePointers,
        this.#inputs,
        inputs.length + this.#weights.tensors.size,
        this.#outputNamePointers,
        outputNames.length,
        this.#outputs,
        0,
      );
      if (code !== 0) throw heap.error();
      made.push(...heap.pointers(this.#outputs, outputNames.length).map((handle) => this.#held(handle)));
      return Object.fromEntries(
        outputNames.map((name, index) => {
          const tensor = made[index] as HeapTensor;
          return [name, this.#kept.has(name) ? tensor : this.#read(tensor)];
        }),
      );
    } catch (error) {
      for (const tensor of made) tensor.dispose();
      throw error;
    } finally {
      for (const tensor of brought) tensor.dispose();
    }
  }

  /** Gives back the session and all that it holds. */
  async release(): Promise<void> {
    await this.#session.release();
    this.#weights.dispose();
    this.#free();
  }

  #own(address: number): number {
    this.#allocated.push(address);
    return address;
  }

  #free(): void {
    for (const address of this.#allocated.splice(0)) this.#heap.module._free(address);
  }

  #bring(tensor: ort.Tensor): HeapTensor {
    const heap = this.#heap;
    const { type } = tensor;
    if (!(type in TYPES)) throw new Error(`an input is ${type}, which no graph for the CPU takes`);
    const { buffer, byteOffset, byteLength } = tensor.data as Float32Array;
    const data = heap.allocate(byteLength);
    const free = () => heap.module._free(data);
    heap.bytes.set(new Uint8Array(buffer, byteOffset, byteLength), data);
    try {
      return heap.tensor(type as keyof typeof TYPES, data, byteLength, tensor.dims, free);
    } catch (error) {
      free();
      throw error;
    }
  }

  #held(handle: number): HeapTensor {
    return new HeapTensor(handle, () => this.#heap.module._OrtReleaseTensor(handle));
  }

  /** A copy of `tensor`, which is given back. */
  #read(tensor: HeapTensor): ort.Tensor {
    const heap = this.#heap;
    const { module } = heap;
    const stack = module.stackSave();
    try {
      const told = module.stackAlloc(4 * module.PTR_SIZE);
      const at = (index: number) => told + index * module.PTR_SIZE;
      if (module._OrtGetTensorData(tensor.handle, at(0), at(1), at(2), at(3)) !== 0) throw heap.error();
      const [type, data, sizes, rank] = heap.pointers(told, 4) as [number, number, number, number];
      const dims = heap.pointers(sizes, rank);
      module._OrtFree(sizes);
      const size = dims.reduce((product, axis) => product * axis, 1);
      if (type !== TYPES.float32) throw new Error(`an output is of ONNX's type ${type}, not float32`);
      const values = new Float32Array(heap.bytes.slice(data, data + 4 * size).buffer);
      return new ort.Tensor("float32", values, dims);
    } finally {
      module.stackRestore(stack);
      tensor.dispose();
    }
  }
}
