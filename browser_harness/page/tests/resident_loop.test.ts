import { beforeEach, expect, test } from "vitest";

import { positionsWithin } from "../runtime/cache.ts";
import { Loss } from "../runtime/loss.ts";
import type { ort } from "../runtime/ort.ts";
import { withRecording } from "../runtime/recording.ts";
import { Resident } from "../runtime/resident.ts";
import { ResidentLoop } from "../runtime/resident_loop.ts";

const NEVER = new Loss(new Promise(() => undefined));
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
      beginComputePass: () => ({ setPipeline() {}, setBindGroup() {}, dispatchWorkgroups() {}, end() {} }),
      finish: () => ({}),
    }),
    queue: {
      submit: () => submitted++,
      writeBuffer: (buffer: unknown, _: number, values: unknown) => {
        if (values instanceof BigInt64Array) contents.set(buffer, values[0] as bigint);
      },
    },
    limits: { maxBufferSize: 1 << 20, maxStorageBufferBindingSize: 1 << 20 },
    pushErrorScope: () => undefined,
    popErrorScope: async () => null,
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
      return Float32Array.of(0.5);
    },
    dispose() {},
  };
  return resident as unknown as Resident;
}

/**
 * A resident graph whose most likely token is the one that was fed, plus 1. As ONNX Runtime does it,
 * a run of a name that it knows feeds and fills the buffers of the first one, which is run twice.
 */
class FakeSession {
  readonly #recorded = new Map<string, readonly [fed: unknown, chosen: unknown]>();

  async run(
    feeds: Record<string, ort.Tensor>,
    fetches: Record<string, ort.Tensor>,
    { extra }: { extra: { gpu_graph_id: string } },
  ): Promise<object> {
    const known = this.#recorded.get(extra.gpu_graph_id);
    const buffers = known ?? ([feeds["input_ids"]?.gpuBuffer, fetches["next_ids"]?.gpuBuffer] as const);
    this.#recorded.set(extra.gpu_graph_id, buffers);
    const [fed, chosen] = buffers;
    for (let runs = known ? 1 : 2; runs > 0; runs--) contents.set(chosen, (contents.get(fed) ?? 0n) + 1n);
    return {};
  }
}

function loopOf(
  resident: Resident,
  growthBytes = 1000,
  budgetBytes = Infinity,
  chunks: readonly number[] = [64, 16],
): ResidentLoop {
  const affordable = positionsWithin(budgetBytes, resident.cache.bytesPerPosition, chunks.at(-1) as number);
  return new ResidentLoop(resident, fakeDevice(), NEVER, chunks, FACTS, { growthBytes, affordable });
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

test.each([[[1]], [[4, 1]]])("a prompt's step of a single token is not the decode step: steps of %j", async (chunks) => {
  const session = new FakeSession() as unknown as ort.InferenceSession;
  const shape = ["batch_size", 1, "past_sequence_length", 1] as const;
  const states = [{ input: "past", output: "present", dtype: "float32" as const, shape }];
  const loop = loopOf(new Resident(session, fakeDevice(), NEVER, states, FACTS.vocab_size), 1000, Infinity, chunks);
  await loop.warmUp(true);
  const tokens: number[] = [];
  for await (const token of loop.tokens([5, 6], { sampling: {}, count: 4, signal: undefined })) tokens.push(token);
  expect(tokens).toEqual([7, 8, 9, 10]);
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

const growing = () => asked.filter((step) => step.startsWith("grow"));

test("the cache grows by what the budget buys, in whole chunks, up to the context", async () => {
  // 100 positions for 1000 bytes: 112 in chunks of 16.
  await take(loopOf(fakeResident(10)), 100, 200, 30);
  expect(growing()).toEqual(["grow to 112 keeping 0", "grow to 224 keeping 112"]);
  asked = [];
  await take(loopOf(fakeResident(10), 9000), 992, 1);
  expect(growing()).toEqual(["grow to 1008 keeping 0"]);
});

test("a small cache doubles, up to what it may grow by", async () => {
  const loop = loopOf(fakeResident(1), 600);
  for (const prompt of [10, 260, 520, 980]) {
    loop.reset();
    await take(loop, prompt, 1);
  }
  expect(growing()).toEqual([
    "grow to 256 keeping 0",
    "grow to 512 keeping 0",
    "grow to 1008 keeping 0",
  ]);
});

test("what a text is known to need is made room for before it begins", async () => {
  await take(loopOf(fakeResident(10)), 100, 12);
  await take(loopOf(fakeResident(10)), 100, 13);
  expect(growing()).toEqual(["grow to 112 keeping 0", "grow to 112 keeping 0"]);
  asked = [];
  const loop = loopOf(fakeResident(10));
  await take(loop, 1, 1);
  loop.reset();
  await take(loop, 100, 100);
  expect(growing()).toEqual(["grow to 112 keeping 0", "grow to 224 keeping 0"]);
});

test("a context that no buffer holds is refused", async () => {
  const loop = loopOf(fakeResident(1, 64));
  await expect(take(loop, 65, 1)).rejects.toMatchObject({ code: "context-full" });
});

test("the budget ends the context, in whole chunks", async () => {
  // 10 bytes a position: 90 of them, of which 80 are whole chunks of 16.
  const loop = loopOf(fakeResident(10), 300, 900);
  expect(loop.most).toBe(80);
  await take(loop, 70, 10);
  expect(growing()).toEqual(["grow to 80 keeping 0"]);
  await expect(take(loop, 81, 1)).rejects.toMatchObject({ code: "context-full" });
});

test("a budget of less than a step is refused, in whole steps", () => {
  expect(positionsWithin(900, 10, 16)).toBe(80);
  expect(positionsWithin(160, 10, 16)).toBe(16);
  expect(() => loopOf(fakeResident(10), 300, 159)).toThrow(
    expect.objectContaining({ code: "bad-input", message: expect.stringContaining("160 bytes are needed") }),
  );
});

test("tokens that were made before a step failed are given before its error", async () => {
  const resident = fakeResident(10);
  const { decode } = resident;
  Object.assign(resident, {
    decode: (position: number) => (position === 6 ? Promise.reject(new Error("no memory")) : decode(position)),
  });
  const tokens: number[] = [];
  const answer = async () => {
    for await (const token of loopOf(resident).tokens(Array(4).fill(5), { sampling: {}, count: 9, signal: undefined })) {
      tokens.push(token);
    }
  };
  await expect(answer()).rejects.toThrow("no memory");
  // The prompt's own, and those of the steps at 4 and 5.
  expect(tokens).toEqual([100, 101, 102]);
});

test("a constraint is asked for every token, and told of it before the next is made", async () => {
  const heard: (number | string)[] = [];
  const constraint = {
    async allowed() {
      heard.push(`allowed after ${asked.length} steps`);
      return Int32Array.of(-1);
    },
    accept: (token: number) => void heard.push(token),
  };
  const rows: number[] = [];
  const continuation = {
    sampling: {},
    count: 3,
    signal: undefined,
    constraint,
    onLogits: (row: Float32Array) => void rows.push(row[0] as number),
  };
  asked = [];
  const tokens: number[] = [];
  for await (const token of loopOf(fakeResident(1)).tokens([5, 5], continuation)) tokens.push(token);
  expect(tokens).toEqual([100, 101, 102]);
  expect(heard).toEqual(["allowed after 2 steps", 100, "allowed after 3 steps", 101, "allowed after 4 steps", 102]);
  expect(rows).toEqual([0.5, 0.5, 0.5]);
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
