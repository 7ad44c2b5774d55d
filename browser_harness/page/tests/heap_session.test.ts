import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { HeapTensor } from "../runtime/heap.ts";
import { HeapCache } from "../runtime/heap_cache.ts";
import { HeapSession, type HeapSessionUse, type Value } from "../runtime/heap_session.ts";
import { DATA } from "../runtime/onnx_model.ts";
import { ort } from "../runtime/ort.ts";
import { watched } from "../runtime/ort_module.ts";
import { SteadyBlob } from "../runtime/steady.ts";
import { type AttentionText, attentionText, check } from "./attention_text.ts";
import { type Coded, codedWeight } from "./coded_weight.ts";
import { FakeModule } from "./fake_module.ts";
import { INT64, modelProto, type NodeText, type TensorText } from "./model_proto.ts";

const { FLOAT, UINT4, FLOAT16 } = DATA;

const fake = vi.hoisted(() => ({ create: (_graph: Uint8Array): unknown => undefined }));

vi.mock("../runtime/ort.ts", async (original) => ({
  ...(await original<typeof import("../runtime/ort.ts")>()),
  createSession: async ({ graph }: { graph: Uint8Array }) => fake.create(graph),
}));

// Node 20 lacks it; whatever has the promise integration that sessions need has it.
Map.groupBy ??= <K, T>(items: Iterable<T>, keyOf: (item: T, index: number) => K) => {
  const groups = new Map<K, T[]>();
  let index = 0;
  for (const item of items) {
    const key = keyOf(item, index++);
    groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  return groups;
};

const WIDTH = 32;
const WORDS = 4;
/** The job's words, which are never given back. */
const LEFT = 1;

const floats = (values: Iterable<number>) => new Uint8Array(Float32Array.from(values).buffer);
const ids = (...values: number[]) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
const nothing = () => new ort.Tensor("float32", new Float32Array(0), [1, 0, WIDTH]);

/** A layer's factors, and its product. */
interface Layer {
  readonly gamma: readonly number[];
  readonly coded: Coded;
}
const LAYERS: readonly Layer[] = ["first", "second", "third"].map((location, index) => ({
  gamma: Array.from({ length: WIDTH }, (_, column) => (1 + ((column + index) % 3)) / 64),
  coded: codedWeight({ rows: WIDTH, columns: WIDTH, bits: 4, block: 16 << (index % 2), scaleBytes: 2 }, location),
}));
const TABLE = Array.from({ length: WORDS * WIDTH }, (_, at) => ((7 * at) % 11) / 4 - 1);

/** Layers one after the other, whose last floats are appended to those before. */
function language(change: { readonly outputs?: string[]; readonly types?: Record<string, number>; readonly nodes?: NodeText[] } = {}): Uint8Array {
  const layer = (index: number): NodeText[] => [
    { op: "Mul", in: [`x${index}`, `gamma${index}`], out: [`n${index}`] },
    { op: "Cast", in: [`s${index}`], out: [`t${index}`], is: { to: FLOAT } },
    { op: "DequantizeLinear", in: [`c${index}`, `t${index}`, `z${index}`], out: [`w${index}`], is: { axis: 1, block_size: LAYERS[index]?.coded.weight.block as number } },
    { op: "FusedMatMul", in: [`n${index}`, `w${index}`], out: [`x${index + 1}`], is: { transB: 1 } },
  ];
  const stored = ({ coded: { weight } }: Layer, index: number): TensorText[] => {
    const { codes, scales, zeroPoints, rows, columns, block } = weight;
    const groups = [rows, columns / block];
    const at = ({ location, offset }: { location: string; offset: number }) => ({ location, at: offset });
    return [
      { name: `c${index}`, type: UINT4, dims: [rows, columns], ...at(codes) },
      { name: `s${index}`, type: FLOAT16, dims: groups, ...at(scales) },
      { name: `z${index}`, type: UINT4, dims: groups, ...at(zeroPoints) },
      { name: `gamma${index}`, type: FLOAT, dims: [WIDTH], location: "vectors", at: 4 * WIDTH * index },
    ];
  };
  const nodes: NodeText[] = [
    { op: "Gather", in: ["table", "ids"], out: ["x0"] },
    ...LAYERS.flatMap((_, index) => layer(index)),
    { op: "Concat", in: ["past", "x3"], out: ["present"] },
    { op: "ReduceSum", in: ["present"], out: ["logits"] },
    ...(change.nodes ?? []),
  ];
  const table = { name: "table", type: FLOAT, dims: [WORDS, WIDTH], raw: floats(TABLE) };
  const { outputs = ["present", "logits"], types = {} } = change;
  return modelProto({ nodes, tensors: [table, ...LAYERS.flatMap(stored)], inputs: ["ids", "past"], outputs, types: { ids: INT64, ...types } });
}

/** What the layers make of a word, in float64. */
function word(id: number): number[] {
  let x = TABLE.slice(id * WIDTH, (id + 1) * WIDTH);
  for (const { gamma, coded } of LAYERS) {
    const n = x.map((value, column) => value * (gamma[column] as number));
    x = n.map((_, row) => n.reduce((sum, value, column) => sum + value * (coded.values[row * WIDTH + column] as number), 0));
  }
  return x;
}

/** Of numbers that three products have rounded, each by at most 1/65534 of a span's largest. */
function expectNear(found: Iterable<number>, wanted: readonly number[]): void {
  const most = Math.max(...wanted.map(Math.abs));
  const all = [...found];
  expect(all).toHaveLength(wanted.length);
  all.forEach((value, index) => expect(Math.abs(value - (wanted[index] as number))).toBeLessThan(1e-3 * most));
}

const shards = () =>
  new Map([
    ...LAYERS.map(({ coded }) => [coded.weight.codes.location, new SteadyBlob([coded.file])] as const),
    ["vectors", new SteadyBlob([floats(LAYERS.flatMap(({ gamma }) => gamma)) as Uint8Array<ArrayBuffer>])] as const,
  ]);

let module: FakeModule;
let released: string[];
let made: number;

const open = (change: Partial<HeapSessionUse> = {}, graph = language(), files = shards()) =>
  HeapSession.open({ graph, shards: files }, { sessionConfig: {}, kept: ["present"], threads: 1, signal: undefined, notes: [], ...change });

const numbersOf = (value: Value | undefined) => (value as ort.Tensor).data as Float32Array;
const held = (value: Value | undefined) => {
  const { type, data, dims } = module.tensors.get((value as HeapTensor).handle) as { type: number; data: number; dims: number[] };
  return { dims, numbers: module.numbers({ type, data, dims }) };
};

/** Has the module started as onnxruntime-web does it: by the default function of its glue code. */
async function start(): Promise<void> {
  const source = (code: string) => `data:text/javascript,${encodeURIComponent(code)}`;
  let memory: unknown;
  Reflect.set(globalThis, "startFake", () => {
    module = new FakeModule();
    memory = module.memory;
    // The glue code keeps it for itself.
    module.memory = undefined;
    return module;
  });
  const { Memory } = WebAssembly;
  const glue = source("export default async () => globalThis.startFake();");
  const started = (await import(/* @vite-ignore */ source(watched(glue)))) as { default: (config: object) => unknown };
  expect(await started.default({})).toBe(module);
  expect(module.memory).toBe(memory);
  expect(WebAssembly.Memory).toBe(Memory);
}

function forget(): void {
  Reflect.deleteProperty(globalThis, "startFake");
  for (const symbol of Object.getOwnPropertySymbols(globalThis)) {
    if (symbol.description === "tabwright.onnxruntime") Reflect.deleteProperty(globalThis, symbol);
  }
}

beforeEach(async () => {
  await start();
  released = [];
  made = 0;
  fake.create = (graph) => {
    const name = `session ${made++}`;
    return { handler: { sessionId: module.session(graph) }, release: async () => void released.push(name) };
  };
});
afterEach(forget);

describe("a session in the heap", () => {
  test("hands its states on where they are, and reads the rest", async () => {
    const session = await open();
    expect(session.inputNames).toEqual(["ids", "past"]);
    let past: Value = nothing();
    const words: number[] = [];
    let after: number | undefined;
    for (const fed of [[1, 2], [3], [0]]) {
      const { present, logits } = await session.run({ ids: ids(...fed), past });
      past.dispose();
      past = present as HeapTensor;
      expect(past).toBeInstanceOf(HeapTensor);
      words.push(...fed.flatMap(word));
      expect(held(past).dims).toEqual([1, words.length / WIDTH, WIDTH]);
      expectNear(held(past).numbers, words);
      expect((logits as ort.Tensor).dims).toEqual([1, 1, 1]);
      expect(Math.abs((numbersOf(logits)[0] as number) - words.reduce((sum, value) => sum + value))).toBeLessThan(1e-3 * words.reduce((sum, value) => sum + Math.abs(value), 0));
      // Three constants and one state, and nothing that was brought for a run.
      expect(module.tensors.size).toBe(LAYERS.length + 1);
      expect(module.allocated.size).toBe((after ??= module.allocated.size));
      expect(module.stackSave()).toBe(8);
    }
    past.dispose();
    await session.release();
    expect([module.tensors.size, module.allocated.size]).toEqual([0, LEFT]);
  });

  test("leaves what it was given to whoever gave it", async () => {
    const session = await open();
    const first = (await session.run({ ids: ids(1), past: nothing() }))["present"] as HeapTensor;
    const again = [await session.run({ ids: ids(2), past: first }), await session.run({ ids: ids(2), past: first })];
    const [a, b] = again.map(({ present }) => held(present).numbers);
    expect(a).toEqual(b);
    expect(held(first).numbers).toHaveLength(WIDTH);
  });

  test("gives back what no later stage reads before it goes on", async () => {
    const session = await open();
    const run = module._OrtRun;
    const held: number[] = [];
    module._OrtRun = (...given) => {
      held.push(module.tensors.size - LAYERS.length);
      return run(...given);
    };
    await session.run({ ids: ids(1, 2), past: nothing() });
    // The past, and what the stage takes: ids, or what a product made.
    expect(held).toEqual([2, 2, 2, 2]);
  });

  test("has one session for stages that are the same", async () => {
    const session = await open();
    // Before the layers; their factors but the first's; after the layers.
    expect(made).toBe(3);
    await session.run({ ids: ids(1), past: nothing() });
    expect(module.runs).toBe(4);
    await session.release();
    expect(released.toSorted()).toEqual(["session 0", "session 1", "session 2"]);
  });

  test("reads or keeps what a product makes, as it does the rest", async () => {
    const graph = language({ outputs: ["present", "x1", "x3"] });
    const session = await open({ kept: ["x3"] }, graph);
    const { present, x1, x3 } = await session.run({ ids: ids(3, 1), past: nothing() });
    const wanted = [3, 1].flatMap(word);
    expectNear(numbersOf(present), wanted);
    expect((x1 as ort.Tensor).dims).toEqual([1, 2, WIDTH]);
    expect(held(x3).dims).toEqual([1, 2, WIDTH]);
    expectNear(held(x3).numbers, wanted);
    expect(module.tensors.size).toBe(LAYERS.length + 1);
    (x3 as HeapTensor).dispose();
    await session.release();
    expect([module.tensors.size, module.allocated.size]).toEqual([0, LEFT]);
  });

  test("gives back sessions before what they hold", async () => {
    const session = await open();
    const create = module._OrtReleaseTensor;
    module._OrtReleaseTensor = (tensor) => {
      released.push("constant");
      return create(tensor);
    };
    await session.release();
    expect(released).toEqual(["session 0", "session 1", "session 2", "constant", "constant", "constant"]);
  });

  test("may be released again", async () => {
    const session = await open();
    (await session.run({ ids: ids(1), past: nothing() }))["present"]?.dispose();
    await session.release();
    await session.release();
    expect([released.length, module.tensors.size, module.allocated.size]).toEqual([3, 0, LEFT]);
  });

  test("tells why a run failed, and leaves nothing of it", async () => {
    const session = await open();
    const names = module.allocated.size;
    await expect(session.run({ ids: ids(-1), past: nothing() })).rejects.toThrow("an index is out of bounds");
    expect([module.tensors.size, module.allocated.size, module.stackSave()]).toEqual([LAYERS.length, names, 8]);
    const { present } = await session.run({ ids: ids(2), past: nothing() });
    expect(present).toBeInstanceOf(HeapTensor);
  });

  test("gives everything back once where an output cannot be read", async () => {
    const graph = language({ outputs: ["present", "count"], types: { count: INT64 }, nodes: [{ op: "Cast", in: ["past"], out: ["count"], is: { to: INT64 } }] });
    const session = await open({}, graph);
    await expect(session.run({ ids: ids(1), past: nothing() })).rejects.toThrow("an output is of ONNX's type 7");
    expect([module.tensors.size, module.stackSave()]).toEqual([LAYERS.length, 8]);
    await session.release();
    expect([module.tensors.size, module.allocated.size]).toEqual([0, LEFT]);
  });

  test("refuses a tensor that no graph for the CPU takes, before it runs", async () => {
    const session = await open();
    const names = module.allocated.size;
    const odd = new ort.Tensor("uint8", new Uint8Array(1), [1, 1]);
    await expect(session.run({ ids: ids(1), past: odd })).rejects.toThrow("an input is uint8");
    expect([module.runs, module.tensors.size, module.allocated.size]).toEqual([0, LAYERS.length, names]);
  });
});

describe("a session that attends", () => {
  const HEADS = 2;
  const CACHES = ["keys", "values"] as const;
  const NONE = Object.fromEntries(CACHES.map((name) => [`past.${name}`, new ort.Tensor("float32", new Float32Array(0), [1, HEADS, 0, WIDTH / HEADS])]));
  const text: AttentionText = attentionText(200, { heads: HEADS, keyHeads: HEADS, width: WIDTH / HEADS, pairs: 4 });
  const WORDS_FED = Array.from({ length: 200 }, (_, at) => (5 * at + (at % 3)) % WORDS);
  /** Words are queries, and their doubles keys and values. */
  const words = Float32Array.from(WORDS_FED.flatMap((id) => TABLE.slice(id * WIDTH, (id + 1) * WIDTH)));
  const doubled = words.map((value) => 2 * value);
  const wanted = { ...text, queries: words, keys: doubled, values: doubled };

  const graph = () =>
    modelProto({
      nodes: [
        { op: "Gather", in: ["table", "ids"], out: ["q"] },
        { op: "Mul", in: ["q", "two"], out: ["k"] },
        { op: "GroupQueryAttention", in: ["q", "k", "k", "past.keys", "past.values", "", "", "cosines", "sines"], out: ["a", "present.keys", "present.values"], is: { num_heads: HEADS, kv_num_heads: HEADS, scale: 0.25, do_rotary: 1 } },
        { op: "Mul", in: ["a", "one"], out: ["logits"] },
      ],
      tensors: [
        { name: "table", type: FLOAT, dims: [WORDS, WIDTH], raw: floats(TABLE) },
        { name: "two", type: FLOAT, dims: [1], raw: floats([2]) },
        { name: "one", type: FLOAT, dims: [1], raw: floats([1]) },
        { name: "cosines", type: FLOAT, dims: [200, 4], raw: floats(text.cosines) },
        { name: "sines", type: FLOAT, dims: [200, 4], raw: floats(text.sines) },
      ],
      inputs: ["ids", "past.keys", "past.values"],
      outputs: ["logits", "present.keys", "present.values"],
      types: { ids: INT64 },
      shapes: Object.fromEntries(CACHES.map((name) => [`past.${name}`, ["batch_size", HEADS, "past_sequence_length", WIDTH / HEADS]])),
    });
  const opened = () => open({ kept: ["present.keys", "present.values"] }, graph(), new Map());

  const fed = (start: number, count: number) => ids(...WORDS_FED.slice(start, start + count));

  test("adds to its caches where they are, and hands them on", async () => {
    const session = await opened();
    let past: Record<string, Value> = NONE;
    let start = 0;
    for (const count of [3, 1, 50, 1, 100]) {
      const made = await session.run({ ids: fed(start, count), ...past });
      check(wanted, start, numbersOf(made["logits"]));
      start += count;
      const caches = CACHES.map((name) => made[`present.${name}`]);
      for (const cache of caches) expect(cache).toBeInstanceOf(HeapCache);
      expect(caches.map((cache) => (cache as HeapCache).length)).toEqual([start, start]);
      if (past !== NONE) expect(caches).toEqual(CACHES.map((name) => past[`past.${name}`]));
      past = Object.fromEntries(CACHES.map((name, index) => [`past.${name}`, caches[index] as Value]));
      // The angles, and nothing of the run.
      expect(module.tensors.size).toBe(2);
    }
    for (const cache of Object.values(past)) cache.dispose();
    await session.release();
    expect([module.tensors.size, module.allocated.size]).toEqual([0, LEFT]);
  });

  test("refuses to go on from what it did not make", async () => {
    const session = await opened();
    const other = { ...NONE, "past.values": new ort.Tensor("float32", new Float32Array(HEADS * 16), [1, HEADS, 1, 16]) };
    await expect(session.run({ ids: fed(0, 1), ...other })).rejects.toThrow("no cache of its own");
    const made = await session.run({ ids: fed(0, 1), ...NONE });
    const half = { ...other, "past.keys": made["present.keys"] as Value };
    await expect(session.run({ ids: fed(1, 1), ...half })).rejects.toThrow("no cache of its own");
    for (const name of CACHES) made[`present.${name}`]?.dispose();
    await session.release();
    expect([module.tensors.size, module.allocated.size]).toEqual([0, LEFT]);
  });

  test("has caches of each text's own", async () => {
    const session = await opened();
    const [first, second] = [await session.run({ ids: fed(0, 2), ...NONE }), await session.run({ ids: fed(0, 4), ...NONE })];
    const on = (made: Record<string, Value>) => Object.fromEntries(CACHES.map((name) => [`past.${name}`, made[`present.${name}`] as Value]));
    check(wanted, 2, numbersOf((await session.run({ ids: fed(2, 3), ...on(first) }))["logits"]));
    check(wanted, 4, numbersOf((await session.run({ ids: fed(4, 1), ...on(second) }))["logits"]));
  });

  test("notes what is left to ONNX Runtime", async () => {
    const notes: string[] = [];
    const whole = { op: "GroupQueryAttention", in: ["w1", "w1", "w1", "past", "past"], out: ["more", "k", "v"] };
    await open({ notes }, language({ nodes: [whole] }));
    expect(notes).toEqual([expect.stringMatching(/floats of 1 weights/), expect.stringMatching(/attends in 1 layers/)]);
  });

  test.each(["_malloc", "_OrtCreateTensor", "_OrtGetTensorData", "_OrtRun"] as const)("gives all back wherever a run fails: %s", async (call) => {
    for (let wanted = 0; ; wanted++) {
      await start();
      const session = await opened();
      const before = await session.run({ ids: fed(0, 1), ...NONE });
      const past = Object.fromEntries(CACHES.map((name) => [`past.${name}`, before[`present.${name}`] as Value]));
      const real = module[call] as (...given: unknown[]) => unknown;
      let count = 0;
      Reflect.set(module, call, (...given: unknown[]) => (count++ === wanted ? Number(call === "_OrtRun" || call === "_OrtGetTensorData") : real(...given)));
      // A text of its own, and one that goes on, with more than there is room for.
      const results = [await session.run({ ids: fed(0, 3), ...NONE }).catch((error: unknown) => error), await session.run({ ids: fed(1, 150), ...past }).catch((error: unknown) => error)];
      Reflect.set(module, call, real);
      const failed = results.filter((result) => result instanceof Error).length;
      expect(failed).toBe(count > wanted ? 1 : 0);
      const caches = new Set([...Object.values(past), ...results.filter((result) => !(result instanceof Error)).flatMap((made) => CACHES.map((name) => (made as Record<string, Value>)[`present.${name}`] as Value))]);
      for (const cache of caches) cache.dispose();
      await session.release();
      expect([module.tensors.size, module.allocated.size], `after failure ${wanted}`).toEqual([0, LEFT]);
      if (failed === 0) break;
    }
  });
});

type Call = "_malloc" | "_OrtCreateTensor" | "_OrtGetTensorData" | "_OrtRun";
/** What each call gives when it fails, and how often a run calls it. */
const FAILURES: readonly (readonly [Call, unknown, number])[] = [
  // For the ids, for three products, and for more activations than before.
  ["_malloc", 0, 5],
  ["_OrtCreateTensor", 0, 4],
  // At three products, and where an output is read.
  ["_OrtGetTensorData", 1, 4],
  ["_OrtRun", 1, 4],
];

/** Has the `wanted`th call from now on fail; gives what undoes it, and tells whether it came to that. */
function failAt(call: Call, wanted: number, failure: unknown): () => boolean {
  const real = module[call] as (...given: unknown[]) => unknown;
  let count = 0;
  Reflect.set(module, call, (...given: unknown[]) => (count++ === wanted ? failure : real(...given)));
  return () => {
    Reflect.set(module, call, real);
    return count > wanted;
  };
}

describe("wherever it fails, all is given back:", () => {
  test.each(FAILURES)("%s in a run", async (call, failure, calls) => {
    let failures = 0;
    for (let wanted = 0; ; wanted++) {
      await start();
      const session = await open();
      const before = module.allocated.size;
      const past = (await session.run({ ids: ids(1), past: nothing() }))["present"] as HeapTensor;
      // Longer than before: there must be more room for its activations.
      const failed = failAt(call, wanted, failure);
      const result = await session.run({ ids: ids(2, 3, 1), past }).catch((error: unknown) => error);
      const again = failed();
      if (again) expect(result).toBeInstanceOf(Error);
      else ((result as Record<string, Value>)["present"] as HeapTensor).dispose();
      expect([module.tensors.size, module.stackSave()]).toEqual([LAYERS.length + 1, 8]);
      past.dispose();
      // Room for activations may stay.
      expect(module.allocated.size - before).toBeLessThanOrEqual(1);
      await session.release();
      expect([module.tensors.size, module.allocated.size], `after failure ${wanted}`).toEqual([0, LEFT]);
      if (!again) break;
      failures++;
    }
    expect(failures).toBe(calls);
  });

  test.each(FAILURES.slice(0, 2))("%s while it is opened", async (call, failure) => {
    for (let wanted = 0; ; wanted++) {
      await start();
      [made, released] = [0, []];
      const failed = failAt(call, wanted, failure);
      const result = await open().catch((error: unknown) => error);
      const again = failed();
      if (again) expect(result).toMatchObject({ code: "session-failed" });
      else await (result as HeapSession).release();
      expect(released).toHaveLength(made);
      expect(module.tensors.size).toBe(0);
      expect(module.allocated.size).toBeLessThanOrEqual(LEFT);
      if (again) continue;
      // At least the constants fail, of which there is one for each layer.
      expect(wanted).toBeGreaterThanOrEqual(LAYERS.length);
      return;
    }
  });
});

describe("opening one", () => {
  test("what is no graph is refused before there is a session", async () => {
    const opening = open({}, new Uint8Array([0x0f, 1, 2, 3]));
    await expect(opening).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("the graph cannot be read") });
    expect([made, module.allocated.size]).toEqual([0, 0]);
  });

  test("a graph that does not tell a type is refused, and the value named", async () => {
    const opening = open({}, language({ types: { n1: 0 } }));
    await expect(opening).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("'n1'") });
  });

  test("a graph without weights runs", async () => {
    const graph = modelProto({ nodes: [{ op: "Mul", in: ["x", "x"], out: ["y"] }], outputs: ["y"] });
    const notes: string[] = [];
    const session = await open({ notes }, graph, new Map());
    const { y } = await session.run({ x: new ort.Tensor("float32", Float32Array.of(3), [1]) });
    expect([...numbersOf(y)]).toEqual([9]);
    await session.release();
    expect([module.allocated.size, released, notes]).toEqual([LEFT, ["session 0"], []]);
  });

  test("weights that are left to ONNX Runtime are noted", async () => {
    const notes: string[] = [];
    await open({ notes }, language({ nodes: [{ op: "Mul", in: ["w1", "w1"], out: ["square"] }] }));
    expect(notes).toEqual([expect.stringMatching(/floats of 1 weights/)]);
  });

  test("a graph all of whose weights are found has no notes", async () => {
    const notes: string[] = [];
    await open({ notes });
    expect(notes).toEqual([]);
  });

  test.each(["vectors", "second"])("a missing shard is named: %s", async (name) => {
    const files = shards();
    files.delete(name);
    await expect(open({}, language(), files)).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining(`'${name}'`) });
    expect(module.tensors.size).toBe(0);
    expect(module.allocated.size).toBeLessThanOrEqual(LEFT);
  });

  test("a shard that ends too early is told", async () => {
    const files = shards().set("third", new SteadyBlob([new Uint8Array(8)]));
    await expect(open({}, language(), files)).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("the weights cannot be brought") });
    expect([module.tensors.size, module.allocated.size]).toEqual([0, LEFT]);
  });

  test.each<[string, number]>([["first", 0], ["third", 0]])("an abort is heard after a weight: %s", async (name) => {
    const abort = new AbortController();
    const files = shards();
    const blob = files.get(name) as SteadyBlob;
    const asked: string[] = [];
    for (const [location, each] of files) {
      const real = each.pieces.bind(each);
      each.pieces = (from, to) => {
        asked.push(location);
        if (each === blob) abort.abort();
        return real(from, to);
      };
    }
    await expect(open({ signal: abort.signal }, language(), files)).rejects.toMatchObject({ code: "aborted" });
    // The weight's codes, scales and zero points, and nothing of the next.
    expect(asked.slice(-3)).toEqual([name, name, name]);
    expect([made, module.tensors.size, module.allocated.size]).toEqual([0, 0, LEFT]);
  });

  test("an abort is heard between sessions", async () => {
    const abort = new AbortController();
    const create = fake.create;
    fake.create = (graph) => {
      abort.abort();
      return create(graph);
    };
    await expect(open({ signal: abort.signal })).rejects.toMatchObject({ code: "aborted" });
    expect([made, released]).toEqual([1, ["session 0"]]);
    expect([module.tensors.size, module.allocated.size]).toEqual([0, LEFT]);
  });

  test("a session that ONNX Runtime refuses takes those before with it", async () => {
    const create = fake.create;
    fake.create = (graph) => {
      if (made === 2) throw new Error("an operator is unknown");
      return create(graph);
    };
    await expect(open()).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("an operator is unknown") });
    expect(released.toSorted()).toEqual(["session 0", "session 1"]);
    expect([module.tensors.size, module.allocated.size]).toEqual([0, LEFT]);
  });

  test("an onnxruntime-web that hides what is needed is told", async () => {
    fake.create = () => ({ release: async () => void released.push("session") });
    await expect(open()).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("hides its session") });
    expect(released).toEqual(["session"]);
    expect(module.allocated.size).toBe(LEFT);
    module.memory = undefined;
    await expect(open()).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("hides its module or its memory") });
    forget();
    await expect(open()).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("hides its module or its memory") });
  });

  test("whatever else goes wrong has a code", async () => {
    module._malloc = () => {
      throw new RangeError("memory cannot grow");
    };
    await expect(open()).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("memory cannot grow") });
  });
});
