import { beforeEach, expect, test } from "vitest";

import { Heap } from "../runtime/heap.ts";
import { makeHeapWeights } from "../runtime/heap_weights.ts";
import type { ExternalData } from "../runtime/onnx_model.ts";
import type { OrtModule } from "../runtime/ort_module.ts";
import { type Coded, codedWeight, expected, type Shape } from "./coded_weight.ts";
import { FakeModule } from "./fake_module.ts";

const SMALL: Shape = { rows: 6, columns: 64, bits: 4, block: 32, scaleBytes: 2 };
const OTHER: Shape = { rows: 3, columns: 96, bits: 8, block: 16, scaleBytes: 4 };

const read = (...all: Coded[]) => async function* ({ location, offset, length }: ExternalData) {
  const found = all.find(({ weight }) => weight.codes.location === location);
  if (!found) throw new Error(`no ${location}`);
  yield found.file.subarray(offset, offset + length);
};

let module: FakeModule;
let heap: Heap;
beforeEach(() => {
  module = new FakeModule();
  heap = new Heap(module as unknown as OrtModule);
});

test("weights of several shards become tensors in the heap", async () => {
  const all = [codedWeight(SMALL, "b", "second"), codedWeight(OTHER, "a", "first")];
  const made = await makeHeapWeights(heap, all.map(({ weight }) => weight), read(...all), undefined);
  expect([...made.tensors.keys()]).toEqual(["a", "b"]);
  for (const coded of all) {
    const { name, rows, columns } = coded.weight;
    const held = module.tensors.get(made.tensors.get(name)?.handle as number);
    expect(held?.dims).toEqual([columns, rows]);
    // Where ONNX Runtime's own kernels expect a tensor to begin.
    expect((held?.data as number) % 64).toBe(0);
    expect(Float32Array.from(module.numbers(held as never))).toEqual(expected(coded));
  }
  expect(module.allocated.size).toBe(1);
  made.dispose();
  made.dispose();
  expect([module.tensors.size, module.allocated.size]).toEqual([0, 0]);
});

test("there may be no weights", async () => {
  const made = await makeHeapWeights(heap, [], read(), undefined);
  expect(made.tensors.size).toBe(0);
  made.dispose();
  expect(module.allocated.size).toBe(0);
});

test("a heap that is too small is told", async () => {
  const { weight } = codedWeight({ ...SMALL, rows: 256 });
  const message = expect.stringContaining(`no room for ${4 * 256 * 64 + 64} bytes`);
  await expect(makeHeapWeights(heap, [weight], read(), undefined)).rejects.toMatchObject({ code: "session-failed", message });
  // What malloc would take for 64 bytes.
  const huge = { ...weight, rows: 2 ** 20, columns: 2 ** 10 };
  await expect(makeHeapWeights(heap, [huge], read(), undefined)).rejects.toMatchObject({ code: "session-failed" });
});

test("of weights that cannot all be made nothing is left", async () => {
  const [there, missing] = [codedWeight(SMALL, "a", "first"), codedWeight(SMALL, "b", "second")];
  const making = makeHeapWeights(heap, [there.weight, missing.weight], read(there), undefined);
  await expect(making).rejects.toThrow("no second");
  module._OrtCreateTensor = () => 0;
  await expect(makeHeapWeights(heap, [there.weight], read(there), undefined)).rejects.toThrow("no reason was given");
  expect([module.tensors.size, module.allocated.size]).toEqual([0, 0]);
});

test("an abort is heard between weights", async () => {
  const all = [codedWeight(SMALL, "a", "first"), codedWeight(SMALL, "b", "second")];
  const abort = new AbortController();
  const reading = read(...all);
  const making = makeHeapWeights(
    heap,
    all.map(({ weight }) => weight),
    (data) => {
      abort.abort();
      return reading(data);
    },
    abort.signal,
  );
  await expect(making).rejects.toMatchObject({ code: "aborted" });
  expect([module.tensors.size, module.allocated.size]).toEqual([0, 0]);
});
