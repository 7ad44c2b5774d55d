import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { attend, type Caches, newCaches } from "../runtime/attending.ts";
import type { Attention } from "../runtime/attention_nodes.ts";
import { Heap } from "../runtime/heap.ts";
import { Kernel } from "../runtime/kernel.ts";
import type { OrtModule } from "../runtime/ort_module.ts";
import { type AttentionText, attended, attentionText, check } from "./attention_text.ts";
import { bring, FakeModule } from "./fake_module.ts";
import { ThreadWorker } from "./thread_worker.ts";

let module: FakeModule;
let heap: Heap;
beforeEach(() => {
  module = new FakeModule();
  heap = new Heap(module as unknown as OrtModule);
});

/** Queries, keys and values of `count` positions from `start` on, next to each other. */
function packed({ attention, queries, keys, values }: AttentionText, start: number, count: number): Float32Array {
  const { heads, keyHeads, width } = attention;
  const rows = (all: Float32Array, of: number, row: number) => [...all.subarray(row * of * width, (row + 1) * of * width)];
  const all = Array.from({ length: count }, (_, index) => start + index);
  return Float32Array.from(all.flatMap((row) => [...rows(queries, heads, row), ...rows(keys, keyHeads, row), ...rows(values, keyHeads, row)]));
}

/** Attends from positions that go on where `caches` end. */
function step(kernel: Kernel, text: AttentionText, caches: Caches, count: number): Float32Array {
  const { attention, queries, keys, values, cosines, sines, pairs } = text;
  const { heads, keyHeads, width, inputs } = attention;
  const start = caches[0].length;
  const part = (all: Float32Array, of: number) => all.slice(start * of * width, (start + count) * of * width);
  const given = inputs.length === 1 ? [packed(text, start, count)] : [part(queries, heads), part(keys, keyHeads), part(values, keyHeads)];
  const places = given.map((floats) => bring(heap, floats));
  const tables = [cosines, sines].map((table) => ({ type: 1, data: bring(heap, table), dims: [table.length / pairs, pairs] }));
  const bytes = 4 * count * heads * width;
  const output = heap.allocate(bytes);
  attend(kernel, attention, caches, { inputs: places, rotation: pairs > 0 ? tables : undefined, output }, count);
  const made = new Float32Array(heap.bytes.slice(output, output + bytes).buffer);
  for (const place of [...places, ...tables.map(({ data }) => data), output]) module._free(place);
  return made;
}

const PACKED: Partial<Attention> = { inputs: ["qkv"] };

describe("attention", () => {
  test.each<[string, Parameters<typeof attentionText>[1]]>([
    ["of heads that share keys", {}],
    ["of heads that share one key", { heads: 3, keyHeads: 1 }],
    ["of heads each with keys of its own", { heads: 3, keyHeads: 3, width: 32, scale: 1 / 3 }],
    ["that rotates", { pairs: 8 }],
    ["that rotates a part", { width: 48, pairs: 8 }],
    ["of inputs that are one", { ...PACKED, pairs: 8 }],
    ["in a window", { window: 5 }],
    ["in a window longer than a panel", { window: 21, pairs: 8 }],
    ["in a window of one", { window: 1 }],
    ["in a window that nothing leaves", { window: 400 }],
    ["that is sharp", { scale: 30 }],
  ])("%s is what its definition says, step after step", async (_, change) => {
    const kernel = await Kernel.open(heap, 1);
    // Alone, in one go, over the ends of panels, beyond what there was room for, and by odd numbers.
    const steps = [1, 1, 5, 9, 1, 33, 64, 1, 15, 97, 1, 2];
    const text = attentionText(steps.reduce((sum, count) => sum + count), change);
    const caches = newCaches(kernel, text.attention);
    for (const count of steps) {
      const start = caches[0].length;
      check(text, start, step(kernel, text, caches, count));
      expect(caches.map(({ length }) => length)).toEqual([start + count, start + count]);
    }
    for (const cache of caches) cache.dispose();
    kernel.dispose();
    expect(module.allocated.size).toBe(1);
  });

  test("weighs as exactly as float32 can", async () => {
    const kernel = await Kernel.open(heap, 1);
    const [positions, width] = [16, 16];
    // Scores without roundings, and values that tell their weights.
    const scores = Array.from({ length: positions }, (_, position) => (position === 9 ? 0 : -(position * position * 43) / 128));
    const one = (at: number, value = 1) => Float32Array.from({ length: width }, (_, index) => (index === at ? value : 0));
    const all = (row: (position: number) => Float32Array) => Float32Array.from(scores.flatMap((_, position) => [...row(position)]));
    const text = {
      ...attentionText(positions, { heads: 1, keyHeads: 1, scale: 0.75 }),
      ...{ queries: all(() => one(3)), keys: all((position) => one(3, (scores[position] as number) / 0.75)), values: all((position) => one(position)) },
    };
    const found = step(kernel, text, newCaches(kernel, text.attention), positions).subarray(-width);
    const weights = scores.map((score) => Math.exp(Math.fround(Math.fround(score / 0.75) * 0.75)));
    const total = weights.reduce((sum, each) => sum + each);
    weights.forEach((weight, position) => expect(Math.abs((found[position] as number) / (weight / total) - 1), `position ${position}`).toBeLessThan(8 * 2 ** -24));
  });

  test("does not look at what a cache has room for", async () => {
    const kernel = await Kernel.open(heap, 1);
    const text = attentionText(40, { window: 7 });
    const caches = newCaches(kernel, text.attention);
    for (const cache of caches) {
      cache.reserve(40);
      // What is no number, everywhere.
      heap.bytes.fill(0xff, cache.place, cache.place + (module.allocated.get(cache.place) as number));
    }
    for (const count of [3, 1, 18, 1, 17]) check(text, caches[0].length, step(kernel, text, caches, count));
  });

  test("is no number where a query is none, and there only", async () => {
    const kernel = await Kernel.open(heap, 1);
    const text = attentionText(6);
    const { heads, width } = text.attention;
    text.queries[(3 * heads + 2) * width + 5] = NaN;
    const found = step(kernel, text, newCaches(kernel, text.attention), 6);
    const head = found.subarray((3 * heads + 2) * width, (3 * heads + 3) * width);
    expect(head).toEqual(new Float32Array(width).fill(NaN));
    text.queries[(3 * heads + 2) * width + 5] = 0;
    const exact = attended(text, 3, 2).exact;
    head.set(exact);
    check(text, 0, found);
  });

  test("beyond the angles that there are is refused", async () => {
    const kernel = await Kernel.open(heap, 1);
    const text = attentionText(4, { pairs: 8 });
    const caches = newCaches(kernel, text.attention);
    step(kernel, text, caches, 3);
    expect(() => step(kernel, text, caches, 2)).toThrow("no rotations for 5 positions");
    expect(caches[0].length).toBe(3);
  });

  test("that has no room is told, and its cache is as it was", async () => {
    const kernel = await Kernel.open(heap, 1);
    const text = attentionText(300);
    const caches = newCaches(kernel, text.attention);
    step(kernel, text, caches, 100);
    const before = caches.map(({ place, capacity, length }) => [place, capacity, length]);
    const { _malloc } = module;
    module._malloc = () => 0;
    expect(() => caches[0].reserve(200)).toThrow("no room");
    module._malloc = _malloc;
    expect(caches.map(({ place, capacity, length }) => [place, capacity, length])).toEqual(before);
    // One that has more room than the other is as good.
    caches[0].reserve(600);
    check(text, 100, step(kernel, text, caches, 100));
  });
});

describe("threads", () => {
  beforeEach(() => void vi.stubGlobal("Worker", ThreadWorker));
  afterEach(() => vi.unstubAllGlobals());

  test("give the attention of one, bit by bit", { timeout: 60_000 }, async () => {
    const kernels = [await Kernel.open(heap, 1), await Kernel.open(heap, 3)] as const;
    const steps = Array.from({ length: 60 }, (_, index) => 1 + (index % 4) * 3);
    const text = attentionText(steps.reduce((sum, count) => sum + count), { heads: 6, keyHeads: 3, width: 32, pairs: 16, window: 90 });
    const caches = kernels.map((kernel) => newCaches(kernel, text.attention));
    for (const count of steps) {
      const [alone, together] = kernels.map((kernel, index) => step(kernel, text, caches[index] as Caches, count));
      expect(together).toEqual(alone);
    }
    for (const kernel of kernels) kernel.dispose();
  });
});
