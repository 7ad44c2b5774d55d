import { expect } from "vitest";

const FLOAT = 1;
const INT64 = 7;
/** Where it says what went wrong. */
const MESSAGE = 2048;

export interface Held {
  readonly type: number;
  readonly data: number;
  readonly dims: readonly number[];
}

/**
 * ONNX Runtime's C interface over a small heap. Its only graph appends `ids`, as floats, to `past`
 * and gives the sum, times the first number of `weight` where there is one, as `logits`; a negative
 * id makes it fail, and 99 gives integers.
 */
export class FakeModule {
  readonly PTR_SIZE = 4;
  HEAPU8 = new Uint8Array(1 << 16);
  #view = new DataView(this.HEAPU8.buffer);
  readonly allocated = new Set<number>();
  readonly tensors = new Map<number, Held>();
  #free = 1 << 12;
  #stack = 8;
  #last = 0;
  #handle = 1000;
  runs = 0;

  _malloc = (bytes: number) => {
    if (this.#free + bytes > this.HEAPU8.length) return 0;
    const place = this.#free;
    this.#free += Math.max(8, Math.ceil(bytes / 8) * 8);
    this.allocated.add(place);
    this.#grow();
    return place;
  };
  _free = (place: number) => expect(this.allocated.delete(place)).toBe(true);
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
  setValue = (place: number, value: number) => this.#view.setUint32(place, value, true);
  getValue = (place: number) => this.#view.getUint32(place, true);
  lengthBytesUTF8 = (text: string) => new TextEncoder().encode(text).length;
  stringToUTF8 = (text: string, place: number, bytes: number) => {
    this.HEAPU8.set(new TextEncoder().encode(`${text}\0`), place);
    expect(bytes).toBe(this.lengthBytesUTF8(text) + 1);
  };
  UTF8ToString = (place: number) =>
    new TextDecoder().decode(this.HEAPU8.subarray(place, this.HEAPU8.indexOf(0, place)));

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
    const held = this.tensors.get(tensor) as Held;
    const place = this._malloc(4 * held.dims.length);
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
    expect(session).toBe(77);
    const named = Object.fromEntries(
      Array.from({ length: inputCount }, (_, index) => [
        this.UTF8ToString(this.getValue(inputNames + 4 * index)),
        this.tensors.get(this.getValue(inputs + 4 * index)) as Held,
      ]),
    );
    const ids = this.numbers(named["ids"] as Held);
    if (ids.some((id) => id < 0)) {
      this.#last = MESSAGE;
      this.stringToUTF8("an id is negative", this.#last, 18);
      return 1;
    }
    const all = [...this.numbers(named["past"] as Held), ...ids];
    const [factor = 1] = named["weight"] ? this.numbers(named["weight"]) : [];
    const logits = factor * all.reduce((sum, id) => sum + id, 0);
    const results: Record<string, number> = {
      present: this.#floats(all, [1, all.length]),
      logits: this.#floats([logits], [1, 1, 1], ids.includes(99) ? INT64 : FLOAT),
    };
    for (let index = 0; index < outputCount; index++) {
      const name = this.UTF8ToString(this.getValue(outputNames + 4 * index));
      this.setValue(outputs + 4 * index, results[name] as number);
    }
    return 0;
  };

  /** As a heap that grows does: views of before are of another buffer. */
  #grow(): void {
    this.HEAPU8 = this.HEAPU8.slice();
    this.#view = new DataView(this.HEAPU8.buffer);
  }

  #hold(held: Held): number {
    const handle = this.#handle++;
    this.tensors.set(handle, held);
    return handle;
  }
  /** A tensor of ONNX Runtime's own: its data go with it, so they are not counted. */
  #floats(values: readonly number[], dims: readonly number[], type = FLOAT): number {
    const data = this._malloc(4 * values.length);
    this.allocated.delete(data);
    values.forEach((value, index) => this.#view.setFloat32(data + 4 * index, value, true));
    return this.#hold({ type, data, dims });
  }

  numbers({ type, data, dims }: Held): number[] {
    return Array.from({ length: sizeOf(dims) }, (_, index) =>
      type === INT64
        ? Number(this.#view.getBigInt64(data + 8 * index, true))
        : this.#view.getFloat32(data + 4 * index, true),
    );
  }
}

const sizeOf = (dims: readonly number[]) => dims.reduce((product, size) => product * size, 1);
