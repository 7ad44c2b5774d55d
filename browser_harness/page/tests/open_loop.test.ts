import { beforeEach, expect, test, vi } from "vitest";

import type { Gpu } from "../runtime/device.ts";
import { Loss } from "../runtime/loss.ts";
import { openLoop, type Parts } from "../runtime/open_loop.ts";
import type { State } from "../runtime/schema.ts";

const sessions = vi.hoisted(() => ({ made: 0, uses: [] as object[] }));

vi.mock("../runtime/ort.ts", async (original) => ({
  ...(await original<typeof import("../runtime/ort.ts")>()),
  createSession: async () => {
    sessions.made++;
    return { inputNames: [], release: async () => undefined };
  },
}));

vi.mock("../runtime/heap_session.ts", () => ({
  HeapSession: {
    open: async (_files: object, use: object) => {
      sessions.uses.push(use);
      return { inputNames: [], release: async () => undefined };
    },
  },
}));

beforeEach(() => {
  sessions.made = 0;
  sessions.uses = [];
});

/** 32 bytes a position. */
const KEY: State = { input: "k", output: "pk", dtype: "float16", shape: ["batch_size", 2, "past_sequence_length", 8] };
/** As many as KEY takes. */
const VALUE: State = { ...KEY, input: "v", output: "pv" };
const CONVOLUTION: State = { input: "c", output: "pc", dtype: "float32", shape: ["batch_size", 1000, 2] };

function parts(...states: State[]): Parts {
  return {
    entry: { graph: "g", resident_graph: "r", session_config: {}, states },
    facts: { vocab_size: 8, context_length: 1000 },
    gpu: { device: {}, loss: new Loss(new Promise(() => undefined)) } as unknown as Gpu,
    file: () => new Blob([]),
    shards: new Map(),
    threads: 3,
    signal: undefined,
    notes: [],
  } as unknown as Parts;
}

const memory = (budgetBytes: number) => ({ growthBytes: 1 << 20, budgetBytes });

test.each<[string, State[], number, number]>([
  ["ends the plain loop's context", [KEY, VALUE], 64 * 100 + 63, 100],
  ["counts no state of a fixed size", [KEY, CONVOLUTION], 32 * 100, 100],
  ["means nothing where no state grows", [CONVOLUTION], 1, Infinity],
  ["may be left out", [KEY, VALUE], Infinity, Infinity],
])("the cache's budget %s", async (_, states, budget, most) => {
  const { kind, loop } = await openLoop("plain", parts(...states), [512], memory(budget));
  expect([kind, loop.most]).toEqual(["plain", most]);
});

test.each<["plain" | "resident", number]>([
  ["plain", 63],
  ["plain", NaN],
  ["plain", -1],
  ["resident", 32 * 64 - 1],
])("the %s loop refuses a budget of %s bytes, before a session is made", async (kind, budget) => {
  const opening = openLoop(kind, parts(KEY, VALUE), [256, 32], memory(budget));
  // A code that no fallback answers: the next way would have the same budget.
  await expect(opening).rejects.toMatchObject({ code: "bad-input", message: expect.stringContaining("cacheBudgetBytes") });
  expect(sessions.made).toBe(0);
});

test("without a GPU the plain loop's session is one in the heap, which keeps the states there and has the page's threads", async () => {
  const { signal } = new AbortController();
  const given = { ...parts(KEY, CONVOLUTION), gpu: undefined, signal };
  await openLoop("plain", given, [512], memory(Infinity));
  expect(sessions.made).toBe(0);
  expect(sessions.uses).toEqual([{ sessionConfig: {}, kept: ["pk", "pc"], threads: 3, signal, notes: given.notes }]);
});
