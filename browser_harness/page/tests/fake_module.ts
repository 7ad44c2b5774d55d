import { expect } from "vitest";

import type { Heap } from "../runtime/heap.ts";
import { DATA, Graph } from "../runtime/onnx_model.ts";
import { INT64 } from "./model_proto.ts";

const { FLOAT } = DATA;
const PAGE = 1 << 16;
/** Where it says what went wrong. */
const MESSAGE = 2048;
/** What nobody asked for, on both sides of what is allocated: malloc promises 8 bytes' alignment and no more. */
const GUARD = 72;
/** What memory holds that nobody has written. */
const GARBAGE = 0xcd;

export interface Held {
  readonly type: number;
  readonly data: number;
  readonly dims: readonly number[];
}

/** What a graph computes with. */
interface Numbers {
  readonly type: number;
  readonly dims: readonly number[];
  readonly numbers: readonly number[];
}

/**
 * ONNX Runtime's C interface over a heap that grows with every allocation. Its sessions run graphs of a few
 * operators, and it looks after what is written beside an allocation.
 */
export class FakeModule {
  readonly PTR_SIZE = 4;
  readonly #memory = new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true });
  memory: WebAssembly.Memory | undefined = this.#memory;
  HEAPU8: Uint8Array = new Uint8Array(this.#memory.buffer);
  /** The bytes of what is allocated, by where it is. */
  readonly allocated = new Map<number, number>();
  readonly tensors = new Map<number, Held>();
  readonly #graphs = new Map<number, Graph>();
  #stack = 8;
  #last = 0;
  #handle = 1000;
  runs = 0;

  /** A session's address. */
  session(model: Uint8Array): number {
    const address = this.#handle++;
    this.#graphs.set(address, new Graph(model));
    return address;
  }

  _malloc = (bytes: number): number => {
    const place = this.#reserve(bytes);
    this.allocated.set(place, bytes);
    return place;
  };
  _free = (place: number): void => {
    // As C has it.
    if (place === 0) return;
    const bytes = this.allocated.get(place);
    expect(bytes, "what is given back").toBeDefined();
    const heap = this.#bytes();
    const beside = [heap.subarray(place - GUARD, place), heap.subarray(place + (bytes as number), place + (bytes as number) + GUARD)];
    expect(beside.every((guard) => guard.every((byte) => byte === GARBAGE)), "nothing is written beside an allocation").toBe(true);
    heap.fill(GARBAGE, place, place + (bytes as number));
    this.allocated.delete(place);
  };
  _OrtFree = (place: number) => {
    this._free(place);
    return 0;
  };
  stackSave = () => this.#stack;
  stackAlloc = (bytes: number) => {
    const place = this.#stack;
    this.#stack += Math.ceil(bytes / 8) * 8;
    return place;
  };
  stackRestore = (stack: number) => {
    this.#stack = stack;
  };
  setValue = (place: number, value: number) => this.#view().setUint32(place, value, true);
  getValue = (place: number) => this.#view().getUint32(place, true);
  lengthBytesUTF8 = (text: string) => new TextEncoder().encode(text).length;
  stringToUTF8 = (text: string, place: number, bytes: number) => {
    this.#bytes().set(new TextEncoder().encode(`${text}\0`), place);
    expect(bytes).toBe(this.lengthBytesUTF8(text) + 1);
  };
  UTF8ToString = (place: number) => {
    const heap = this.#bytes();
    return new TextDecoder().decode(heap.slice(place, heap.indexOf(0, place)));
  };

  _OrtGetLastError = (code: number, message: number) => {
    this.setValue(code, 1);
    this.setValue(message, this.#last);
    return 0;
  };
  _OrtCreateTensor = (type: number, data: number, bytes: number, dims: number, rank: number, location: number) => {
    expect(location).toBe(1);
    const held = { type, data, dims: Array.from({ length: rank }, (_, axis) => this.getValue(dims + 4 * axis)) };
    expect(bytes).toBe(sizeOf(held.dims) * (type === INT64 ? 8 : 4));
    return this.#hold(held);
  };
  _OrtGetTensorData = (tensor: number, type: number, data: number, dims: number, rank: number) => {
    const held = this.#held(tensor);
    const place = this.#reserve(4 * held.dims.length);
    this.allocated.set(place, 4 * held.dims.length);
    held.dims.forEach((size, axis) => this.setValue(place + 4 * axis, size));
    for (const [at, value] of [[type, held.type], [data, held.data], [dims, place], [rank, held.dims.length]] as const) {
      this.setValue(at, value);
    }
    return 0;
  };
  _OrtReleaseTensor = (tensor: number) => {
    expect(this.tensors.delete(tensor)).toBe(true);
    return 0;
  };
  _OrtRun = async (
    ...[session, inputNames, inputs, inputCount, outputNames, outputCount, outputs]: [
      number, number, number, number, number, number, number, number,
    ]
  ) => {
    this.runs++;
    const graph = this.#graphs.get(session) as Graph;
    const names = (place: number, count: number) => Array.from({ length: count }, (_, index) => this.UTF8ToString(this.getValue(place + 4 * index)));
    const given = names(inputNames, inputCount);
    const wanted = names(outputNames, outputCount);
    expect([given, wanted]).toEqual([graph.inputs, graph.outputs]);
    const values = new Map<string, Numbers>();
    given.forEach((name, index) => {
      const held = this.#held(this.getValue(inputs + 4 * index));
      values.set(name, { ...held, numbers: this.numbers(held) });
    });
    try {
      for (const { op, inputs, outputs, attributes } of graph.nodes) {
        const operate = OPERATORS[op] as Operator;
        values.set(outputs[0] as string, operate(inputs.map((name) => values.get(name) ?? constant(graph, name)), attributes));
      }
    } catch (error) {
      this.#last = MESSAGE;
      const { message } = error as Error;
      this.stringToUTF8(message, MESSAGE, message.length + 1);
      return 1;
    }
    wanted.forEach((name, index) => {
      const place = outputs + 4 * index;
      expect(this.getValue(place), "a place for an output").toBe(0);
      this.setValue(place, this.#made(values.get(name) as Numbers));
    });
    return 0;
  };

  numbers({ type, data, dims }: Held): number[] {
    const view = this.#view();
    return Array.from({ length: sizeOf(dims) }, (_, index) =>
      type === INT64 ? Number(view.getBigInt64(data + 8 * index, true)) : view.getFloat32(data + 4 * index, true),
    );
  }

  #held(tensor: number): Held {
    const held = this.tensors.get(tensor);
    expect(held, "a tensor that is there").toBeDefined();
    return held as Held;
  }

  #hold(held: Held): number {
    const handle = this.#handle++;
    this.tensors.set(handle, held);
    return handle;
  }

  /** A tensor of ONNX Runtime's own: its data go with it, so they are not counted. */
  #made({ type, dims, numbers }: Numbers): number {
    const data = this.#reserve(8 * numbers.length);
    const view = this.#view();
    numbers.forEach((value, index) =>
      type === INT64 ? view.setBigInt64(data + 8 * index, BigInt(value), true) : view.setFloat32(data + 4 * index, value, true),
    );
    return this.#hold({ type, data, dims });
  }

  /** As a heap that grows does: views of before do not reach what is new. */
  #reserve(bytes: number): number {
    const pages = Math.ceil((2 * GUARD + bytes) / PAGE);
    const start = this.#memory.grow(pages) * PAGE;
    new Uint8Array(this.#memory.buffer, start, pages * PAGE).fill(GARBAGE);
    return start + GUARD;
  }

  #bytes(): Uint8Array {
    return new Uint8Array(this.#memory.buffer);
  }

  /** Emscripten renews the module's view whenever it looks at the heap itself. */
  #view(): DataView {
    this.HEAPU8 = this.#bytes();
    return new DataView(this.#memory.buffer);
  }
}

type Operator = (inputs: readonly Numbers[], attributes: ReadonlyMap<string, number>) => Numbers;

/** ONNX's, as far as graphs of tests go. */
const OPERATORS: { readonly [op: string]: Operator } = {
  Cast: ([x], attributes) => ({ ...(x as Numbers), type: attributes.get("to") as number }),
  Concat: (inputs) => {
    const [a, b] = inputs as [Numbers, Numbers];
    const [batch, length, ...more] = a.dims as [number, number];
    return { type: a.type, dims: [batch, length + (b.dims[1] as number), ...more], numbers: [...a.numbers, ...b.numbers] };
  },
  Gather: (inputs) => {
    const [table, ids] = inputs as [Numbers, Numbers];
    const [count, width] = table.dims as [number, number];
    if (ids.numbers.some((id) => id < 0 || id >= count)) throw new Error("an index is out of bounds");
    const numbers = ids.numbers.flatMap((id) => table.numbers.slice(id * width, (id + 1) * width));
    return { type: table.type, dims: [...ids.dims, width], numbers };
  },
  Mul: (inputs) => {
    const [x, factors] = inputs as [Numbers, Numbers];
    const { numbers } = factors;
    return { ...x, numbers: x.numbers.map((value, index) => value * (numbers[index % numbers.length] as number)) };
  },
  ReduceSum: ([x]) => ({ type: FLOAT, dims: [1, 1, 1], numbers: [(x as Numbers).numbers.reduce((sum, value) => sum + value, 0)] }),
};

function constant(graph: Graph, name: string): Numbers {
  const { type, dims, raw } = graph.tensor(name) as { type: number; dims: readonly number[]; raw: Uint8Array };
  expect(type).toBe(FLOAT);
  return { type, dims, numbers: [...new Float32Array(raw.slice().buffer)] };
}

const sizeOf = (dims: readonly number[]) => dims.reduce((product, size) => product * size, 1);

/** Room in the heap with these floats in it. */
export function bring(heap: Heap, floats: Float32Array): number {
  const place = heap.allocate(floats.byteLength);
  heap.bytes.set(new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength), place);
  return place;
}
