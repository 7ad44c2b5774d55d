import { TabwrightError } from "./errors.ts";
import { type OrtModule, startedModule } from "./ort_module.ts";

/** As onnxruntime-web numbers the places of a tensor. */
const ON_CPU = 1;
const ADDRESSABLE = 2 ** 32;

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

/** What {@link Heap.look} tells of a tensor. */
export interface Look {
  /** ONNX's number. */
  readonly type: number;
  readonly data: number;
  readonly dims: readonly number[];
}

/** ONNX Runtime's heap, as its C interface wants things to lie in it. */
export class Heap {
  readonly module: OrtModule;

  constructor(module: OrtModule) {
    this.module = module;
  }

  /**
   * The heap of the ONNX Runtime that has started here.
   *
   * @throws TabwrightError `session-failed` where onnxruntime-web is not as it was when this was written.
   */
  static started(): Heap {
    const module = startedModule();
    if (module?._OrtRun === undefined || module.memory === undefined) {
      throw new TabwrightError("session-failed", "onnxruntime-web hides its module or its memory");
    }
    return new Heap(module);
  }

  /** All of it, until it grows: by an allocation, a run, or in another of ONNX Runtime's threads. */
  get bytes(): Uint8Array {
    return new Uint8Array(this.module.memory.buffer);
  }

  /** Writes what comes, piece after piece. */
  async write(pieces: AsyncIterable<Uint8Array> | Iterable<Uint8Array>, place: number): Promise<void> {
    for await (const piece of pieces) {
      this.bytes.set(piece, place);
      place += piece.length;
    }
  }

  /**
   * Room that stays until it is freed.
   *
   * @throws TabwrightError `session-failed` when there is none.
   */
  allocate(bytes: number): number {
    const address = bytes < ADDRESSABLE ? this.module._malloc(bytes) : 0;
    if (address === 0) throw new TabwrightError("session-failed", `the WASM heap has no room for ${bytes} bytes`);
    return address;
  }

  /**
   * A tensor whose values are at `data` and stay there.
   *
   * @param type ONNX's number of it.
   * @param free what else is to be done when it is given back.
   * @throws Error with what ONNX Runtime says.
   */
  tensor(type: number, data: number, bytes: number, dims: readonly number[], free?: () => void): HeapTensor {
    const { module } = this;
    const stack = module.stackSave();
    try {
      const sizes = module.stackAlloc(dims.length * module.PTR_SIZE);
      this.setPointers(sizes, dims);
      const handle = module._OrtCreateTensor(type, data, bytes, sizes, dims.length, ON_CPU);
      if (handle === 0) throw this.error();
      return new HeapTensor(handle, () => {
        module._OrtReleaseTensor(handle);
        free?.();
      });
    } finally {
      module.stackRestore(stack);
    }
  }

  /**
   * A tensor with room of its own, which whoever asked is to fill.
   *
   * @throws TabwrightError `session-failed` when there is no room, or Error with what ONNX Runtime says.
   */
  room(type: number, bytes: number, dims: readonly number[]): { readonly tensor: HeapTensor; readonly place: number } {
    const place = this.allocate(bytes);
    const free = () => this.module._free(place);
    try {
      return { tensor: this.tensor(type, place, bytes, dims, free), place };
    } catch (error) {
      free();
      throw error;
    }
  }

  /** Where a tensor's values are, and what it is. */
  look(tensor: HeapTensor): Look {
    const { module } = this;
    const stack = module.stackSave();
    try {
      const told = module.stackAlloc(4 * module.PTR_SIZE);
      const at = (index: number) => told + index * module.PTR_SIZE;
      if (module._OrtGetTensorData(tensor.handle, at(0), at(1), at(2), at(3)) !== 0) throw this.error();
      const [type, data, sizes, rank] = this.pointers(told, 4) as [number, number, number, number];
      const dims = this.pointers(sizes, rank);
      module._OrtFree(sizes);
      return { type, data, dims };
    } finally {
      module.stackRestore(stack);
    }
  }

  /** Writes pointers one after the other. */
  setPointers(address: number, values: Iterable<number>): void {
    const { module } = this;
    let at = address;
    for (const value of values) {
      module.setValue(at, value, "*");
      at += module.PTR_SIZE;
    }
  }

  /** `count` pointers one after the other. */
  pointers(address: number, count: number): number[] {
    const { module } = this;
    return Array.from({ length: count }, (_, index) => Number(module.getValue(address + index * module.PTR_SIZE, "*")));
  }

  /** Pointers to `names` one after the other, which stay until they are freed. */
  names(names: readonly string[]): number {
    const { module } = this;
    const sizes = names.map((name) => module.lengthBytesUTF8(name) + 1);
    const pointers = this.allocate(names.length * module.PTR_SIZE + sizes.reduce((sum, size) => sum + size, 0));
    let at = pointers + names.length * module.PTR_SIZE;
    const addresses = names.map((name, index) => {
      const address = at;
      module.stringToUTF8(name, address, sizes[index] as number);
      at += sizes[index] as number;
      return address;
    });
    this.setPointers(pointers, addresses);
    return pointers;
  }

  /** What ONNX Runtime says of its last failure. */
  error(): Error {
    const { module } = this;
    const stack = module.stackSave();
    const told = module.stackAlloc(2 * module.PTR_SIZE);
    module._OrtGetLastError(told, told + module.PTR_SIZE);
    const [, message] = this.pointers(told, 2);
    module.stackRestore(stack);
    return new Error(message ? module.UTF8ToString(message) : "no reason was given");
  }
}
