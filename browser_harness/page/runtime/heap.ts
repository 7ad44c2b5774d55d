import { TabwrightError } from "./errors.ts";
import { type OrtModule, startedModule } from "./ort_module.ts";

/** ONNX's numbers of the types that a graph for the CPU takes and gives. */
export const TYPES = { float32: 1, int64: 7 } as const;
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
    if (module?._OrtRun === undefined) throw new TabwrightError("session-failed", "onnxruntime-web hides its module");
    return new Heap(module);
  }

  /** All of it, until it grows: by an allocation, a run, or in another of ONNX Runtime's threads. */
  get bytes(): Uint8Array {
    // The module's own views are renewed when they are used.
    this.module.getValue(0, "i8");
    return this.module.HEAPU8;
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
   * @throws Error with what ONNX Runtime says.
   */
  tensor(type: keyof typeof TYPES, data: number, bytes: number, dims: readonly number[], free?: () => void): HeapTensor {
    const { module } = this;
    const stack = module.stackSave();
    try {
      const sizes = module.stackAlloc(dims.length * module.PTR_SIZE);
      this.setPointers(sizes, dims);
      const handle = module._OrtCreateTensor(TYPES[type], data, bytes, sizes, dims.length, ON_CPU);
      if (handle === 0) throw this.error();
      return new HeapTensor(handle, () => {
        module._OrtReleaseTensor(handle);
        free?.();
      });
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
