import { TabwrightError } from "./errors.ts";
import { ort } from "./ort.ts";
import { type OrtModule, startedModule } from "./ort_module.ts";

/** ONNX's numbers of the types that a graph for the CPU takes and gives. */
const TYPES = { float32: 1, int64: 7 } as const;
/** As onnxruntime-web numbers the places of a tensor. */
const ON_CPU = 1;

/** A tensor in ONNX Runtime's heap, which a session takes as it is. */
export class HeapTensor {
  readonly handle: number;
  #free: (() => void) | undefined;

  constructor(handle: number, free: () => void) {
    this.handle = handle;
    this.#free = free;
  }

  /** Gives its memory back, once. */
  dispose(): void {
    this.#free?.();
    this.#free = undefined;
  }
}

/** What a session takes and gives. */
export type Value = ort.Tensor | HeapTensor;

/** What is run: a session, or what stands for one. */
export interface Runner {
  readonly inputNames: readonly string[];
  run(feeds: Readonly<Record<string, Value>>): Promise<Readonly<Record<string, Value>>>;
}

/**
 * A session on the CPU whose `kept` outputs stay in ONNX Runtime's heap.
 *
 * onnxruntime-web copies every output to an array of JavaScript's, and every input from one. Of a
 * cache that is all of it, twice per token: for a thousand tokens of SmolLM2's some 90 MB, half of
 * them in pages that the browser has to zero first and to collect afterwards.
 */
export class HeapSession implements Runner {
  readonly inputNames: readonly string[];
  readonly #outputNames: readonly string[];
  readonly #kept: ReadonlySet<string>;
  readonly #module: OrtModule;
  readonly #session: number;

  /** @throws TabwrightError `session-failed` where onnxruntime-web is not as it was when this was written. */
  constructor(session: ort.InferenceSession, kept: Iterable<string>) {
    const module = startedModule();
    // The session's address in the heap, of which its public face says nothing.
    const { handler } = session as unknown as { handler?: { sessionId?: number } };
    if (module?._OrtRun === undefined || typeof handler?.sessionId !== "number") {
      throw new TabwrightError("session-failed", "onnxruntime-web hides its module or its session");
    }
    this.inputNames = session.inputNames;
    this.#outputNames = session.outputNames;
    this.#kept = new Set(kept);
    this.#module = module;
    this.#session = handler.sessionId;
  }

  /** @throws Error with what ONNX Runtime says. */
  async run(feeds: Readonly<Record<string, Value>>): Promise<Record<string, Value>> {
    const { inputNames } = this;
    const outputNames = this.#outputNames;
    const brought: HeapTensor[] = [];
    const made: HeapTensor[] = [];
    const stack = this.#module.stackSave();
    try {
      const inputs = inputNames.map((name) => {
        const value = feeds[name] as Value;
        if (value instanceof HeapTensor) return value.handle;
        const tensor = this.#bring(value);
        brought.push(tensor);
        return tensor.handle;
      });
      const results = this.#pointers(outputNames.map(() => 0));
      const code = await this.#module._OrtRun(
        this.#session,
        this.#names(inputNames),
        this.#pointers(inputs),
        inputs.length,
        this.#names(outputNames),
        outputNames.length,
        results,
        0,
      );
      if (code !== 0) throw this.#error();
      for (const index of outputNames.keys()) made.push(this.#held(this.#pointer(results, index)));
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
      this.#module.stackRestore(stack);
    }
  }

  #bring(tensor: ort.Tensor): HeapTensor {
    const module = this.#module;
    const type = TYPES[tensor.type as keyof typeof TYPES] as number | undefined;
    if (type === undefined) throw new Error(`an input is ${tensor.type}, which no graph for the CPU takes`);
    const { buffer, byteOffset, byteLength } = tensor.data as Float32Array;
    const data = module._malloc(byteLength);
    module.HEAPU8.set(new Uint8Array(buffer, byteOffset, byteLength), data);
    const dims = this.#pointers(tensor.dims);
    const handle = module._OrtCreateTensor(type, data, byteLength, dims, tensor.dims.length, ON_CPU);
    if (handle === 0) {
      module._free(data);
      throw this.#error();
    }
    return new HeapTensor(handle, () => {
      module._OrtReleaseTensor(handle);
      module._free(data);
    });
  }

  #held(handle: number): HeapTensor {
    return new HeapTensor(handle, () => this.#module._OrtReleaseTensor(handle));
  }

  /** A copy of `tensor`, which is given back. */
  #read(tensor: HeapTensor): ort.Tensor {
    const module = this.#module;
    const told = this.#pointers([0, 0, 0, 0]);
    const at = (index: number) => told + index * module.PTR_SIZE;
    if (module._OrtGetTensorData(tensor.handle, at(0), at(1), at(2), at(3)) !== 0) throw this.#error();
    const type = this.#pointer(told, 0);
    const data = this.#pointer(told, 1);
    const sizes = this.#pointer(told, 2);
    const rank = this.#pointer(told, 3);
    const dims = Array.from({ length: rank }, (_, index) => this.#pointer(sizes, index));
    module._OrtFree(sizes);
    const size = dims.reduce((product, axis) => product * axis, 1);
    if (type !== TYPES.float32) throw new Error(`an output is of ONNX's type ${type}, not float32`);
    const values = new Float32Array(module.HEAPU8.slice(data, data + 4 * size).buffer);
    tensor.dispose();
    return new ort.Tensor("float32", values, dims);
  }

  #names(names: readonly string[]): number {
    const module = this.#module;
    return this.#pointers(
      names.map((name) => {
        const bytes = module.lengthBytesUTF8(name) + 1;
        const place = module.stackAlloc(bytes);
        module.stringToUTF8(name, place, bytes);
        return place;
      }),
    );
  }

  #pointers(values: readonly number[]): number {
    const { PTR_SIZE } = this.#module;
    const place = this.#module.stackAlloc(values.length * PTR_SIZE);
    for (const [index, value] of values.entries()) this.#module.setValue(place + index * PTR_SIZE, value, "*");
    return place;
  }

  #pointer(place: number, index: number): number {
    return Number(this.#module.getValue(place + index * this.#module.PTR_SIZE, "*"));
  }

  #error(): Error {
    const told = this.#pointers([0, 0]);
    this.#module._OrtGetLastError(told, told + this.#module.PTR_SIZE);
    const message = this.#pointer(told, 1);
    return new Error(message ? this.#module.UTF8ToString(message) : "no reason was given");
  }
}
