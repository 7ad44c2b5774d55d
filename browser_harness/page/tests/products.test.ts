import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { Heap } from "../runtime/heap.ts";
import { Kernel } from "../runtime/kernel.ts";
import type { ExternalData } from "../runtime/onnx_model.ts";
import type { OrtModule } from "../runtime/ort_module.ts";
import { type PackedWeight, Products } from "../runtime/products.ts";
import { type Coded, codedWeight, pick, type Shape } from "./coded_weight.ts";
import { bring, FakeModule } from "./fake_module.ts";
import { ThreadWorker } from "./thread_worker.ts";

/** What rounding to float32 makes of 1 at most, in shares of it. */
const UNIT = 2 ** -24;
/** The largest of the first whole numbers that an activation becomes, and how much finer the second is. */
const LARGEST = 32767;
const FINER = 256;
/** Spans whose activations are all smaller count as zero. */
const NOTHING = 1e-30;

let module: FakeModule;
let heap: Heap;
beforeEach(() => {
  module = new FakeModule();
  heap = new Heap(module as unknown as OrtModule);
});

/** Products with a kernel of their own. */
class OwnProducts extends Products {
  readonly #kernel: Kernel;

  constructor(kernel: Kernel) {
    super(kernel);
    this.#kernel = kernel;
  }

  static async open(heap: Heap, threads: number): Promise<OwnProducts> {
    return new OwnProducts(await Kernel.open(heap, threads));
  }

  override dispose(): void {
    super.dispose();
    this.#kernel.dispose();
  }
}

/** The bytes of a weight's file in pieces of odd sizes. */
const read = ({ file }: Coded) => async function* ({ offset, length }: ExternalData) {
  for (let at = offset; at < offset + length; at += 37) yield file.subarray(at, Math.min(at + 37, offset + length));
};

/** What `products` makes of `x` [count, columns], and checks that it wrote nothing else. */
function multiply(products: Products, x: Float32Array, count: number, weights: readonly PackedWeight[]): Float32Array[] {
  const place = bring(heap, x);
  const sizes = weights.map(({ rows }) => 4 * count * rows);
  const places = sizes.map((size) => heap.allocate(size));
  products.multiply(place, count, weights.map((weight, index) => [weight, places[index] as number] as const));
  const made = places.map((at, index) => new Float32Array(heap.bytes.slice(at, at + (sizes[index] as number)).buffer));
  const given = new Uint8Array(x.buffer, x.byteOffset, x.byteLength);
  expect(Buffer.compare(heap.bytes.subarray(place, place + x.byteLength), given), "activations stay").toBe(0);
  for (const each of [place, ...places]) module._free(each);
  return made;
}

/**
 * Checks a product against sums of float64.
 *
 * Of a row alone an activation is told as a number of steps, of which the largest of its span has 32767, and of 256ths of
 * one. That is off by half of the latter, and by what float32 rounds off: the factor, the activation times
 * it, and the step. Sums within a span are exact; then their floats are rounded, both together, their scale times
 * the step, the product of both, and the sums over spans. Of several rows a value is rounded, and each sum.
 */
function check(product: Float32Array, x: Float32Array, { values, weight }: Coded, span: number, alone = x.length === weight.columns): void {
  const { rows, columns } = weight;
  for (let at = 0; at < x.length / columns; at++) {
    for (let row = 0; row < rows; row++) {
      let [exact, sizes, lost] = [0, 0, 0];
      for (let start = 0; start < columns; start += span) {
        const most = x.subarray(at * columns + start, at * columns + start + span).reduce((most, a) => Math.max(most, Math.abs(a)), 0);
        let [between, size] = [0, 0];
        for (let column = start; column < start + span; column++) {
          const [a, w] = [x[at * columns + column] as number, values[row * columns + column] as number];
          exact += a * w;
          size += Math.abs(a * w);
          // Zero and the largest are whole steps.
          if (a !== 0 && Math.abs(a) !== most) between += Math.abs(w);
        }
        // Scales times steps may be subnormal: off by 2**-150, for up to 2**31 steps.
        lost += 2 ** -119;
        if (alone) lost += most > NOTHING ? (most / LARGEST / FINER / 2) * between + 6 * UNIT * size : size;
        sizes += size;
      }
      const error = Math.abs((product[at * rows + row] as number) - exact);
      const roundings = alone ? columns / span + 4 : columns + 2;
      const allowed = lost + roundings * UNIT * (sizes + lost);
      // Not "error > allowed", which NaN would pass.
      if (!(error <= allowed)) expect.fail(`row ${row} by activations ${at}: ${product[at * rows + row]}, not ${exact}, is off by ${error} > ${allowed}`);
    }
  }
}

/** Checks the product of all rows of `x`, and of each row alone. */
function checkEachWay(products: Products, x: Float32Array, packed: PackedWeight, coded: Coded): void {
  const { columns } = packed;
  const all = Array.from({ length: x.length / columns }, (_, row) => x.slice(row * columns, (row + 1) * columns));
  for (const each of all.length > 1 ? [x, ...all] : all) {
    const [product] = multiply(products, each, each.length / columns, [packed]);
    check(product as Float32Array, each, coded, packed.span);
  }
}

/** Activations of either sign around 1, another for every `seed`. */
const activations = (length: number, seed = 0) => Float32Array.from({ length }, (_, at) => (pick(at + 31 * seed, 2001) - 1000) / 500);

const shape = (change: Partial<Shape> = {}): Shape => ({ rows: 17, columns: 64, bits: 4, block: 32, scaleBytes: 2, ...change });

/** All codes as far from their zero point as can be, in the longest span. */
function extreme(bits: 4 | 8, zero: number): Coded {
  const coded = codedWeight({ rows: 16, columns: 128, bits, block: 128, scaleBytes: 4, half: () => 0x3c00 });
  const [most, { codes, zeroPoints }] = [(1 << bits) - 1, coded.weight];
  const twice = (code: number) => (bits === 4 ? code * 17 : code);
  coded.file.fill(twice(most - zero), codes.offset, codes.offset + codes.length);
  coded.file.fill(twice(zero), zeroPoints.offset, zeroPoints.offset + zeroPoints.length);
  return { ...coded, values: coded.values.fill((most - 2 * zero) * Math.fround(1 / 3)) };
}

describe("products", () => {
  const spans = new Map([[16, 16], [32, 32], [64, 64], [128, 128], [256, 128], [576, 96], [48, 48]]);
  const cases = ([4, 8] as const).flatMap((bits) =>
    [...spans.keys()].flatMap((block) =>
      [false, true].flatMap((middle) => ([2, 4] as const).map((scaleBytes) => ({ bits, block, middle, scaleBytes }))),
    ),
  );

  test.each(cases)("$bits bits, blocks of $block, middle zero points: $middle, scales of $scaleBytes bytes", async (which) => {
    const products = await OwnProducts.open(heap, 1);
    for (const rows of [1, 15, 16, 17, 40]) {
      for (const columns of [which.block, 3 * which.block]) {
        const coded = codedWeight({ ...which, rows, columns });
        const packed = await products.pack(coded.weight, read(coded));
        expect(packed.span).toBe(spans.get(which.block));
        for (const count of [1, 2, 3, 5]) {
          const x = activations(count * columns, count);
          checkEachWay(products, x, packed, coded);
        }
      }
    }
    products.dispose();
    expect(module.allocated.size).toBe(1);
  });

  test.each(cases)("with one activation give each value itself: $bits bits, $block, $middle, $scaleBytes", async ({ block, ...which }) => {
    const products = await OwnProducts.open(heap, 1);
    const coded = codedWeight({ ...which, block, rows: 33, columns: block > 128 ? block : 3 * block });
    const packed = await products.pack(coded.weight, read(coded));
    const { rows, columns } = coded.weight;
    const x = new Float32Array(columns * columns);
    for (let column = 0; column < columns; column++) x[column * columns + column] = 1;
    const [product] = multiply(products, x, columns, [packed]);
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        const value = coded.values[row * columns + column] as number;
        const found = product?.[column * rows + row] as number;
        // Only the value itself is rounded.
        if (!(Math.abs(found - value) <= 4 * UNIT * Math.abs(value))) expect.fail(`row ${row}, column ${column}: ${found}, not ${value}`);
      }
    }
  });

  test.each([4, 8] as const)("take scales of any size, %i bits", async (bits) => {
    const products = await OwnProducts.open(heap, 1);
    // A scale for each row: the largest, the smallest of all, subnormals, and zero.
    const halves = [0x7bff, 0xfbff, 0x0001, 0x8001, 0x03ff, 0x0400, 0x0200, 0x0000, 0x3c00];
    for (const scaleBytes of [2, 4] as const) {
      const coded = codedWeight({ rows: 18, columns: 64, block: 64, bits, scaleBytes, half: (row) => halves[row % halves.length] as number });
      const packed = await products.pack(coded.weight, read(coded));
      const x = activations(3 * 64);
      checkEachWay(products, x, packed, coded);
    }
  });

  test.each([4, 8] as const)("hold the largest codes and activations, %i bits", async (bits) => {
    const products = await OwnProducts.open(heap, 1);
    for (const zero of [0, (1 << bits) - 1]) {
      const coded = extreme(bits, zero);
      const packed = await products.pack(coded.weight, read(coded));
      for (const sign of [1, -1]) {
        const x = new Float32Array(2 * 128).fill(sign);
        checkEachWay(products, x, packed, coded);
      }
    }
  });

  test.each([4, 8] as const)("round activations to the nearest step, %i bits", async (bits) => {
    const products = await OwnProducts.open(heap, 1);
    // What is lost adds up, for all values are alike.
    const coded = extreme(bits, 0);
    const packed = await products.pack(coded.weight, read(coded));
    for (const steps of [100, 100.25, 100.49, 100.51, 100.75, 100.9, 101, 101.25, 0.4, 0.6, 32766.4]) {
      for (const sign of [1, -1]) {
        const x = new Float32Array(17 * 128).fill((sign * steps) / LARGEST, 0, 128);
        // One beside the largest, in each place of a vector.
        for (let row = 1; row < 17; row++) x[row * 128 + row] = (sign * steps) / LARGEST;
        for (let row = 0; row < 17; row++) x[row * 128] = 1;
        checkEachWay(products, x, packed, coded);
      }
    }
  });

  test.each([4, 8] as const)("make no more of tiny activations than they are, %i bits", async (bits) => {
    const products = await OwnProducts.open(heap, 1);
    const coded = extreme(bits, 0);
    const packed = await products.pack(coded.weight, read(coded));
    for (const most of [1e-29, 1e-31, 1e-35, 1e-40]) {
      const x = new Float32Array(3 * 128).fill(most / 50);
      for (const first of [0, 128, 256]) x[first] = most;
      checkEachWay(products, x, packed, coded);
    }
  });

  test("need no room for zero points that are all the middle", async () => {
    const products = await OwnProducts.open(heap, 1);
    const zeros = async (change: Partial<Shape>) => {
      const coded = codedWeight(shape({ rows: 16, ...change }));
      return (await products.pack(coded.weight, read(coded))).zeros;
    };
    expect([await zeros({ middle: true }), await zeros({ middle: true, bits: 8 })]).toEqual([false, false]);
    expect([await zeros({}), await zeros({ bits: 8 })]).toEqual([true, true]);
  });

  test.each<[string, (x: Float32Array) => void]>([
    ["an outlier in each span", (x) => x.forEach((_, at) => at % 32 === 5 && (x[at] = 1e4))],
    ["a negative outlier", (x) => void (x[40] = -1e6)],
    ["none but zeros", (x) => x.fill(0)],
    ["zeros in one span", (x) => x.fill(0, 32, 64)],
    ["zeros below zero", (x) => x.fill(-0)],
    ["tiny ones", (x) => x.forEach((value, at) => (x[at] = value * 1e-35))],
    ["tiny ones in one span", (x) => x.forEach((value, at) => at < 32 && (x[at] = value * 1e-35))],
    ["subnormal ones", (x) => x.forEach((value, at) => (x[at] = value * 1e-42))],
    ["small ones", (x) => x.forEach((value, at) => (x[at] = value * 1e-25))],
    ["huge ones", (x) => x.forEach((value, at) => (x[at] = value * 1e33))],
  ])("take %s", async (_, change) => {
    const products = await OwnProducts.open(heap, 1);
    for (const bits of [4, 8] as const) {
      const coded = codedWeight(shape({ bits }));
      const packed = await products.pack(coded.weight, read(coded));
      for (const count of [1, 3]) {
        const x = activations(count * 64);
        change(x.subarray(0, 64));
        checkEachWay(products, x, packed, coded);
      }
    }
  });

  test.each([NaN, Infinity, -Infinity])("of activations with %d are no numbers", async (odd) => {
    const products = await OwnProducts.open(heap, 1);
    for (const bits of [4, 8] as const) {
      const coded = codedWeight(shape({ bits, columns: 96 }));
      const packed = await products.pack(coded.weight, read(coded));
      const usual = activations(96);
      // At each place of a vector, in the first span and in the last.
      for (const column of [0, 1, 2, 3, 4, 5, 6, 7, 31, 64, 95]) {
        for (const row of [0, 1, 2]) {
          const x = Float32Array.from([...usual, ...usual, ...usual]);
          x[row * 96 + column] = odd;
          const own = x.slice(row * 96, (row + 1) * 96);
          expect(multiply(products, own, 1, [packed])[0]).toEqual(new Float32Array(17).fill(NaN));
          const product = multiply(products, x, 3, [packed])[0] as Float32Array;
          for (const other of [0, 1, 2]) {
            const own = product.subarray(other * 17, (other + 1) * 17);
            if (other === row) expect(own.some(Number.isFinite)).toBe(false);
            // Those beside them are as ever.
            else check(own, usual, coded, packed.span, false);
          }
        }
      }
    }
  });

  test("with weights of several spans, in any order", async () => {
    const products = await OwnProducts.open(heap, 1);
    const columns = 256;
    const all = [
      shape({ columns, block: 32 }),
      shape({ columns, block: 32, rows: 5, bits: 8 }),
      shape({ columns, block: 128, rows: 40 }),
      shape({ columns, block: 16, rows: 16, scaleBytes: 4 }),
      shape({ columns, block: 32, rows: 1, middle: true }),
    ].map((each) => codedWeight(each));
    const packed: PackedWeight[] = [];
    for (const coded of all) packed.push(await products.pack(coded.weight, read(coded)));
    const x = activations(3 * columns);
    const made = multiply(products, x, 3, packed);
    all.forEach((coded, index) => check(made[index] as Float32Array, x, coded, (packed[index] as PackedWeight).span));
  });

  test("do not depend on what was multiplied before", async () => {
    const products = await OwnProducts.open(heap, 1);
    const [coded, other] = [codedWeight(shape()), codedWeight(shape({ columns: 96 }))];
    const [packed, wide] = [await products.pack(coded.weight, read(coded)), await products.pack(other.weight, read(other))];
    const x = activations(64);
    const [first] = multiply(products, x, 1, [packed]);
    multiply(products, activations(5 * 96, 1), 5, [wide]);
    expect(multiply(products, x, 1, [packed])).toEqual([first]);
  });
});

describe("the heap", () => {
  /** Has the `wanted`th allocation from now on fail, and tells whether it came to that. */
  function failAt(wanted: number): () => boolean {
    const allocate = module._malloc;
    let count = 0;
    module._malloc = (bytes) => (count++ === wanted ? 0 : allocate(bytes));
    return () => {
      module._malloc = allocate;
      return count > wanted;
    };
  }

  test("has everything back in the end but the job's words, which a thread may still look at", async () => {
    const products = await OwnProducts.open(heap, 1);
    const [words] = [...module.allocated.keys()];
    const coded = codedWeight(shape());
    const packed = await products.pack(coded.weight, read(coded));
    multiply(products, activations(64), 1, [packed]);
    multiply(products, activations(5 * 64), 5, [packed]);
    products.dispose();
    expect([...module.allocated.keys()]).toEqual([words]);
  });

  test("has it back once, however often it is asked for", async () => {
    const products = await OwnProducts.open(heap, 1);
    const coded = codedWeight(shape());
    multiply(products, activations(64), 1, [await products.pack(coded.weight, read(coded))]);
    products.dispose();
    products.dispose();
    expect(module.allocated.size).toBe(1);
  });

  test("keeps the packed weight alone, once it is there", async () => {
    const products = await OwnProducts.open(heap, 1);
    for (const middle of [false, true]) {
      const before = new Set(module.allocated.keys());
      const coded = codedWeight(shape({ rows: 40, middle }));
      const { place } = await products.pack(coded.weight, read(coded));
      const own = [...module.allocated].filter(([each]) => !before.has(each));
      // 40 rows make three panels of 16; a row of 64 columns has two spans, with a scale and a zero point each.
      expect(own).toEqual([[place, (48 * 64) / 2 + 48 * 2 * (middle ? 4 : 5)]]);
    }
  });

  test("has nothing of a weight that cannot be read, or has no room", async () => {
    const products = await OwnProducts.open(heap, 1);
    const coded = codedWeight(shape());
    const reading = products.pack(coded.weight, async function* (data) {
      yield* read(coded)(data);
      if (data === coded.weight.scales) throw new Error("the network is gone");
    });
    await expect(reading).rejects.toThrow("the network is gone");
    let failures = 0;
    for (let wanted = 0; ; wanted++) {
      const failed = failAt(wanted);
      const packing = products.pack(coded.weight, read(coded)).catch((error: unknown) => error);
      const result = await packing;
      if (!failed()) break;
      failures++;
      expect(result).toMatchObject({ code: "session-failed", message: expect.stringContaining("no room") });
    }
    // The source, and what is packed.
    expect(failures).toBe(2);
    products.dispose();
    expect(module.allocated.size).toBe(1);
  });

  test("that has no room for activations is told, and has all back once", async () => {
    const products = await OwnProducts.open(heap, 1);
    const coded = codedWeight(shape());
    const packed = await products.pack(coded.weight, read(coded));
    const [x, y] = [bring(heap, activations(5 * 64)), heap.allocate(4 * 5 * 17)];
    products.multiply(x, 1, [[packed, y]]);
    const failed = failAt(0);
    expect(() => products.multiply(x, 5, [[packed, y]])).toThrow("no room");
    expect(failed()).toBe(true);
    // What there is room for is multiplied as before, in room that is its own.
    products.multiply(x, 1, [[packed, y]]);
    check(new Float32Array(heap.bytes.slice(y, y + 4 * 17).buffer), activations(64), coded, packed.span);
    for (const place of [x, y]) module._free(place);
    products.dispose();
    expect(module.allocated.size).toBe(1);
  });
});

describe("threads", () => {
  beforeEach(() => void vi.stubGlobal("Worker", ThreadWorker));
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
    expect(ThreadWorker.running.size).toBe(0);
  });

  test.each([2, 4])("%i give the products of one, bit by bit, time after time", { timeout: 60_000 }, async (threads) => {
    const alone = await OwnProducts.open(heap, 1);
    const together = await OwnProducts.open(heap, threads);
    expect(ThreadWorker.running.size).toBe(threads - 1);
    const columns = 192;
    const packed: PackedWeight[] = [];
    for (const rows of [1, 16, 50, 64, 65, 130, 400, 1000]) {
      for (const bits of [4, 8] as const) {
        const coded = codedWeight({ rows, columns, bits, block: [32, 48, 64, 192][packed.length % 4] as number, scaleBytes: 2, middle: rows % 5 === 0 });
        packed.push(await alone.pack(coded.weight, read(coded)));
      }
    }
    const most = 5;
    const x = bring(heap, activations(most * columns));
    const [wanted, found] = [heap.allocate(4 * most * 1000), heap.allocate(4 * most * 1000)];
    for (let turn = 0; turn < 600; turn++) {
      const count = 1 + (turn % most);
      // Mostly one after the other, as a model's products come; sometimes after helpers have gone to sleep.
      if (turn % 60 === 59) await new Promise((resolve) => setTimeout(resolve, 20));
      const weight = packed[pick(turn, packed.length)] as PackedWeight;
      const bytes = 4 * count * weight.rows;
      heap.bytes.fill(0xcd, found, found + bytes);
      alone.multiply(x, count, [[weight, wanted]]);
      together.multiply(x, count, [[weight, found]]);
      const heapNow = heap.bytes;
      const same = Buffer.compare(heapNow.subarray(wanted, wanted + bytes), heapNow.subarray(found, found + bytes)) === 0;
      if (!same) expect.fail(`product ${turn}, of ${weight.rows} rows by ${count}, differs`);
    }
    for (const place of [x, wanted, found]) module._free(place);
    together.dispose();
    alone.dispose();
    expect(module.allocated.size).toBe(2);
  });
});
