import { beforeEach, expect, test } from "vitest";

import type { Resident } from "../runtime/resident.ts";
import { ResidentLoop } from "../runtime/resident_loop.ts";
import { withRecording } from "../runtime/recording.ts";

const NEVER = new Promise<never>(() => undefined);
const FACTS = { vocab_size: 1000, context_length: 1000 };

/** Where a buffer's int64 is kept, by buffer. */
let contents: Map<unknown, bigint>;
/** What the loop asked for, in order. */
let asked: string[];
let submitted: number;

beforeEach(() => {
  contents = new Map();
  asked = [];
  submitted = 0;
});

class FakeBuffer {
  readonly size: number;
  constructor(size: number) {
    this.size = size;
  }
  async mapAsync(): Promise<void> {
    // Long after the copy: by then the GPU has made other tokens.
    await new Promise((done) => setTimeout(done, 2));
  }
  getMappedRange(): ArrayBuffer {
    return BigInt64Array.of(contents.get(this) ?? -1n).buffer;
  }
  unmap(): void {}
  destroy(): void {}
}

function fakeDevice(): GPUDevice {
  const device = {
    createBuffer: ({ size }: { size: number }) => new FakeBuffer(size),
    createShaderModule: () => ({}),
    createComputePipeline: () => ({ getBindGroupLayout: () => ({}) }),
    createBindGroup: () => ({}),
    createCommandEncoder: () => ({
      copyBufferToBuffer: (from: unknown, _: number, to: unknown) => contents.set(to, contents.get(from) ?? -1n),
      finish: () => ({}),
    }),
    queue: { submit: () => submitted++, writeBuffer: () => undefined },
  };
  return device as unknown as GPUDevice;
}

/** Chooses 100, 101, ... whatever is fed. */
function fakeResident(bytesPerPosition: number, most = 1e6): Resident {
  const next = new FakeBuffer(8);
  const cache = { capacity: 0, bytesPerPosition, most };
  const choose = () => contents.set(next, (contents.get(next) ?? 99n) + 1n);
  const resident = {
    cache,
    next,
    logits: new FakeBuffer(4),
    async grow(capacity: number, used: number) {
      asked.push(`grow to ${capacity} keeping ${used}`);
      cache.capacity = capacity;
    },
    async prefill(tokens: readonly number[], position: number, chunk: number) {
      asked.push(`prefill ${tokens.length} of ${chunk} at ${position}`);
      contents.set(next, 99n);
      choose();
    },
    async decode(position: number) {
      asked.push(`decode at ${position}`);
      choose();
    },
    choose(token: number) {
      asked.push(`choose ${token}`);
    },
    async readLogits() {
      return Float32Array.of(asked.length);
    },
    dispose() {},
  };
  return resident as unknown as Resident;
}

function loopOf(resident: Resident, growthBytes = 1000, chunks: readonly number[] = [64, 16]): ResidentLoop {
  return new ResidentLoop(resident, fakeDevice(), NEVER, chunks, FACTS, growthBytes);
}

async function take(loop: ResidentLoop, prompt: number, count: number, reads = count): Promise<number[]> {
  const tokens: number[] = [];
  const ids = Array.from({ length: prompt }, () => 5);
  for await (const token of loop.tokens(ids, { sampling: {}, count, signal: undefined })) {
    tokens.push(token);
    if (tokens.length === reads) break;
  }
  return tokens;
}

test("a prompt is fed in whole chunks, the last one padded", async () => {
  await take(loopOf(fakeResident(1)), 64 + 16 + 3, 1);
  expect(asked.slice(1)).toEqual(["prefill 64 of 64 at 0", "prefill 16 of 16 at 64", "prefill 3 of 16 at 80"]);
});

test("tokens come in their order, though each is read after the next were made", async () => {
  expect(await take(loopOf(fakeResident(1)), 4, 6)).toEqual([100, 101, 102, 103, 104, 105]);
  expect(asked.filter((step) => step.startsWith("decode"))).toHaveLength(5);
});

test("who stops reading hears of nothing more, and leaves nothing under way", async () => {
  const loop = loopOf(fakeResident(1));
  expect(await take(loop, 4, 50, 2)).toEqual([100, 101]);
  const steps = asked.length;
  expect(steps).toBeLessThan(8);
  await new Promise((done) => setTimeout(done, 20));
  expect(asked).toHaveLength(steps);
  loop.reset();
  expect(await take(loop, 4, 3)).toEqual([100, 101, 102]);
});

test("a probe feeds the prompt in every size of step, then token by token", async () => {
  const loop = loopOf(fakeResident(1));
  const seen: [number, string][] = [];
  for await (const { position, how } of loop.probe(Array(20).fill(5), [7, 8], undefined)) seen.push([position, how]);
  expect(asked.slice(1)).toEqual([
    "prefill 20 of 64 at 0",
    "prefill 16 of 16 at 0",
    "prefill 4 of 16 at 16",
    "choose 7",
    "decode at 20",
    "choose 8",
    "decode at 21",
  ]);
  expect(seen).toEqual([
    [19, "prefill in steps of 64"],
    [19, "prefill in steps of 16"],
    [20, "a single token"],
    [21, "a single token"],
  ]);
});

test("a probe stops on request, before its next step", async () => {
  const controller = new AbortController();
  const probing = loopOf(fakeResident(1)).probe([5], [7], controller.signal);
  await probing.next();
  const steps = asked.length;
  controller.abort();
  await expect(probing.next()).rejects.toMatchObject({ code: "aborted" });
  expect(asked).toHaveLength(steps);
});

test("the cache grows by what the budget buys, in whole chunks, up to the context", async () => {
  // 100 positions for 1000 bytes: 112 in chunks of 16.
  await take(loopOf(fakeResident(10)), 100, 30);
  expect(asked.filter((step) => step.startsWith("grow"))).toEqual([
    "grow to 112 keeping 0",
    "grow to 224 keeping 112",
  ]);
  asked = [];
  await take(loopOf(fakeResident(10), 9000), 992, 1);
  expect(asked[0]).toBe("grow to 1008 keeping 0");
});

test("a context that no buffer holds is refused", async () => {
  const loop = loopOf(fakeResident(1, 64));
  await expect(take(loop, 65, 1)).rejects.toMatchObject({ code: "context-full" });
});

test("a run that fails ends the text with its error", async () => {
  const resident = fakeResident(1);
  Object.assign(resident, { decode: () => Promise.reject(new Error("lost")) });
  await expect(take(loopOf(resident), 4, 5)).rejects.toThrow("lost");
});

test("the option to record is there once", () => {
  const options = withRecording({ logSeverityLevel: 3 });
  expect([options.enableGraphCapture, options.enableGraphCapture]).toEqual([true, undefined]);
});
