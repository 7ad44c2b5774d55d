import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { Heap, HeapTensor } from "../runtime/heap.ts";
import { HeapSession, openHeapSession, type Value } from "../runtime/heap_session.ts";
import type { HeapWeights } from "../runtime/heap_weights.ts";
import { ort } from "../runtime/ort.ts";
import { watched } from "../runtime/ort_module.ts";
import { FakeModule } from "./fake_module.ts";

const made = vi.hoisted(() => ({ session: undefined as unknown, count: 0 }));

vi.mock("../runtime/ort.ts", async (original) => ({
  ...(await original<typeof import("../runtime/ort.ts")>()),
  createSession: async () => {
    made.count++;
    return made.session;
  },
}));

const ids = (...values: number[]) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), [1, values.length]);
const nothing = () => new ort.Tensor("float32", new Float32Array(0), [1, 0]);
/** As {@link HeapWeights}, without a block of their own. */
const weightsLike = (tensors: Map<string, HeapTensor>, dispose = () => undefined as void) =>
  ({ tensors, dispose }) as unknown as HeapWeights;
const NO_WEIGHTS = weightsLike(new Map());

let module: FakeModule;
let released: string[];

function open(kept: string[], weights = NO_WEIGHTS, handler: object = { sessionId: 77 }): HeapSession {
  const inputNames = ["ids", "past", ...weights.tensors.keys()];
  const release = async () => void released.push("session");
  const session = { inputNames, outputNames: ["present", "logits"], handler, release };
  return new HeapSession(Heap.started(), session as unknown as ort.InferenceSession, kept, weights);
}

/** Has the module started as onnxruntime-web does it: by the default function of its glue code. */
async function start(): Promise<void> {
  const source = (code: string) => `data:text/javascript,${encodeURIComponent(code)}`;
  Reflect.set(globalThis, "fakeModule", module);
  const glue = source("export default async () => globalThis.fakeModule;");
  const started = (await import(/* @vite-ignore */ source(watched(glue)))) as { default: (config: object) => unknown };
  expect(await started.default({})).toBe(module);
}

function forget(): void {
  Reflect.deleteProperty(globalThis, "fakeModule");
  for (const symbol of Object.getOwnPropertySymbols(globalThis)) {
    if (symbol.description === "tabwright.onnxruntime") Reflect.deleteProperty(globalThis, symbol);
  }
}

beforeEach(async () => {
  module = new FakeModule();
  released = [];
  await start();
});
afterEach(forget);

describe("a session in the heap", () => {
  test("hands its states on where they are, and reads the rest", async () => {
    const session = open(["present"]);
    const names = module.allocated.size;
    let past: Value = nothing();
    const sums: number[] = [];
    for (const fed of [[1, 2], [3], [4]]) {
      const { present, logits } = await session.run({ ids: ids(...fed), past });
      past.dispose();
      past = present as HeapTensor;
      expect(past).toBeInstanceOf(HeapTensor);
      expect((logits as ort.Tensor).dims).toEqual([1, 1, 1]);
      sums.push(...((logits as ort.Tensor).data as Float32Array));
      // One state, and nothing that was brought for a run.
      expect(module.tensors.size).toBe(1);
      expect(module.allocated.size).toBe(names);
      expect(module.stackSave()).toBe(8);
    }
    expect(sums).toEqual([3, 6, 10]);
    past.dispose();
    expect(module.tensors.size).toBe(0);
    await session.release();
    expect([module.allocated.size, released]).toEqual([0, ["session"]]);
  });

  test("brings its weights to every run, and nobody else has to", async () => {
    const heap = Heap.started();
    const data = heap.allocate(4);
    module.HEAPU8.set(new Uint8Array(Float32Array.of(2.5).buffer), data);
    const weight = heap.tensor("float32", data, 4, [1]);
    const dispose = () => {
      released.push("weights");
      weight.dispose();
      module._free(data);
    };
    const session = open([], weightsLike(new Map([["weight", weight]]), dispose));
    expect(session.inputNames).toEqual(["ids", "past"]);
    for (const id of [4, 6]) {
      const { logits } = await session.run({ ids: ids(id), past: nothing() });
      expect([...((logits as ort.Tensor).data as Float32Array)]).toEqual([2.5 * id]);
    }
    await session.release();
    // A session that still had them would compute with what comes after them in that place.
    expect(released).toEqual(["session", "weights"]);
    expect([module.tensors.size, module.allocated.size]).toEqual([0, 0]);
  });

  test("tells why a run failed, and leaves nothing of it", async () => {
    const session = open(["present"]);
    const names = module.allocated.size;
    await expect(session.run({ ids: ids(-1), past: nothing() })).rejects.toThrow("an id is negative");
    expect([module.tensors.size, module.allocated.size, module.stackSave()]).toEqual([0, names, 8]);
    const { present } = await session.run({ ids: ids(5), past: nothing() });
    expect(present).toBeInstanceOf(HeapTensor);
  });

  test("gives everything back once where an output cannot be read", async () => {
    const session = open([]);
    const names = module.allocated.size;
    await expect(session.run({ ids: ids(99), past: nothing() })).rejects.toThrow("an output is of ONNX's type 7");
    expect([module.tensors.size, module.allocated.size, module.stackSave()]).toEqual([0, names, 8]);
  });

  test("refuses a tensor that no graph for the CPU takes, before it runs", async () => {
    const session = open(["present"]);
    const names = module.allocated.size;
    const odd = new ort.Tensor("uint8", new Uint8Array(1), [1, 1]);
    await expect(session.run({ ids: ids(1), past: odd })).rejects.toThrow("uint8");
    expect([module.runs, module.tensors.size, module.allocated.size]).toEqual([0, 0, names]);
  });

  test("tells that the heap is full", async () => {
    const session = open(["present"]);
    const names = module.allocated.size;
    const long = ids(...new Array<number>(10_000).fill(1));
    await expect(session.run({ ids: long, past: nothing() })).rejects.toThrow("has no room for 80000 bytes");
    expect([module.runs, module.tensors.size, module.allocated.size]).toEqual([0, 0, names]);
  });

  test("leaves nothing where the heap is full before the first run", () => {
    const room = module._malloc;
    let left = 3;
    module._malloc = (bytes) => (left-- > 0 ? room(bytes) : 0);
    expect(() => open([])).toThrow("has no room");
    expect(module.allocated.size).toBe(0);
  });

  test("is refused where onnxruntime-web hides what it needs", () => {
    expect(() => open([], NO_WEIGHTS, {})).toThrow("onnxruntime-web hides its session");
    forget();
    expect(() => open([])).toThrow("onnxruntime-web hides its module");
  });
});

describe("opening one", () => {
  const shards = new Map();
  beforeEach(() => {
    made.count = 0;
    const release = async () => void released.push("session");
    made.session = { inputNames: ["ids", "past"], outputNames: ["present", "logits"], handler: { sessionId: 77 }, release };
  });

  test("a graph without weights runs", async () => {
    const notes: string[] = [];
    const session = await openHeapSession({ graph: new Uint8Array(0), shards }, {}, [], undefined, notes);
    const { logits } = await session.run({ ids: ids(3), past: nothing() });
    expect([...((logits as ort.Tensor).data as Float32Array)]).toEqual([3]);
    await session.release();
    expect([module.allocated.size, released, notes]).toEqual([0, ["session"], []]);
  });

  test("what is no graph is refused before there is a session", async () => {
    const opening = openHeapSession({ graph: new Uint8Array([0x0f, 1, 2, 3]), shards }, {}, [], undefined, []);
    await expect(opening).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("cannot be read") });
    expect(made.count).toBe(0);
  });

  test("without room for its weights there is no session left", async () => {
    module._malloc = () => 0;
    const opening = openHeapSession({ graph: new Uint8Array(0), shards }, {}, [], undefined, []);
    await expect(opening).rejects.toMatchObject({ code: "session-failed", message: expect.stringContaining("has no room") });
    expect(released).toEqual(["session"]);
  });

  test("whatever else goes wrong has a code", async () => {
    module._malloc = () => {
      throw new RangeError("memory cannot grow");
    };
    const opening = openHeapSession({ graph: new Uint8Array(0), shards }, {}, [], undefined, []);
    await expect(opening).rejects.toMatchObject({
      code: "session-failed",
      message: expect.stringContaining("the weights cannot be made: memory cannot grow"),
    });
    expect(released).toEqual(["session"]);
  });
});
