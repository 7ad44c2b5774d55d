import { describe, expect, test } from "vitest";

import type { Model } from "../runtime/api.ts";
import { Constrainer } from "../runtime/constraint.ts";
import { Forward } from "../runtime/forward.ts";
import { PlainLoop } from "../runtime/loop.ts";
import { Loss } from "../runtime/loss.ts";
import { LocalModel } from "../runtime/model.ts";
import { nest, ort } from "../runtime/ort.ts";
import type { Tokenizer } from "../runtime/tokenizer.ts";

const VOCABULARY = 10;
const FACTS = {
  name: "tiny",
  architecture: "",
  model_type: "",
  parameters: 0,
  vocab_size: VOCABULARY,
  layers: 1,
  context_length: 12,
  eos_token_ids: [9],
};

const STATES = (["key", "value"] as const).map((part) => ({
  input: `past_key_values.0.${part}`,
  output: `present.0.${part}`,
  dtype: "float32" as const,
  shape: ["batch_size", 1, "past_sequence_length", 1] as const,
}));

/**
 * A session whose cache holds the tokens themselves and whose most likely next
 * token is the sum of all tokens so far, modulo the vocabulary.
 */
class FakeSession {
  readonly inputNames: string[];
  readonly fed: number[][] = [];
  live = 0;
  fail: Error | undefined;

  constructor(options: { keeps: boolean } = { keeps: true }) {
    this.inputNames = ["input_ids", "attention_mask", "past_key_values.0.key", "past_key_values.0.value"];
    if (options.keeps) this.inputNames.push("num_logits_to_keep");
  }

  async run(feeds: Record<string, ort.Tensor>): Promise<Record<string, ort.Tensor>> {
    if (this.fail) throw this.fail;
    const ids = Array.from(feeds["input_ids"]?.data as BigInt64Array, Number);
    const past = [...(feeds["past_key_values.0.key"]?.data as Float32Array)];
    const all = [...past, ...ids];
    if (feeds["attention_mask"]?.dims[1] !== all.length) throw new Error("the mask has a wrong length");
    this.fed.push(ids);
    const keep = Number((feeds["num_logits_to_keep"]?.data as BigInt64Array | undefined)?.[0] ?? 0n) || ids.length;
    const logits = new Float32Array(keep * VOCABULARY);
    for (let row = 0; row < keep; row++) {
      const seen = all.slice(0, all.length - keep + row + 1);
      logits[row * VOCABULARY + (seen.reduce((sum, id) => sum + id, 0) % VOCABULARY)] = 1;
    }
    return {
      logits: new ort.Tensor("float32", logits, [1, keep, VOCABULARY]),
      "present.0.key": this.#cache(all),
      "present.0.value": this.#cache(all),
    };
  }

  #cache(all: number[]): ort.Tensor {
    const tensor = new ort.Tensor("float32", Float32Array.from(all), [1, 1, all.length, 1]);
    const dispose = tensor.dispose.bind(tensor);
    this.live++;
    tensor.dispose = () => {
      this.live--;
      dispose();
    };
    return tensor;
  }
}

const tokenizer = {
  encode: (text: string) => Array.from(text, Number),
  decode: (ids: readonly number[]) => ids.join(""),
  applyChatTemplate: () => ({ rendered: "12", ids: [1, 2] }),
} as unknown as Tokenizer;

function modelOn(session: FakeSession, chunk = 4, lost?: Promise<never>, most = Infinity): LocalModel {
  const forward = new Forward(session as unknown as ort.InferenceSession, STATES, lost && new Loss(lost));
  const loop = new PlainLoop(forward, chunk, most);
  const info = { facts: FACTS } as unknown as Model["info"];
  const constrainer = new Constrainer(() => Promise.reject(new Error("no engine here")), undefined, VOCABULARY);
  return new LocalModel(info, tokenizer, loop, constrainer, async () => undefined);
}

async function collect<T>(source: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of source) items.push(item);
  return items;
}

describe("generate", () => {
  test.each([true, false])("continues greedily, whether the graph keeps logits (%s) or not", async (keeps) => {
    const session = new FakeSession({ keeps });
    const tokens = await collect(modelOn(session).generate([1, 2], { maxNewTokens: 3 }));
    expect(tokens.map(({ token, text }) => [token, text])).toEqual([[3, "3"], [6, "6"], [2, "2"]]);
    expect(session.fed).toEqual([[1, 2], [3], [6]]);
    expect(session.live).toBe(0);
  });

  test("feeds a long prompt in chunks", async () => {
    const session = new FakeSession();
    await collect(modelOn(session, 3).generate([1, 0, 0, 0, 0, 0, 0], { maxNewTokens: 1 }));
    expect(session.fed.map((ids) => ids.length)).toEqual([3, 3, 1]);
    const even = new FakeSession();
    await collect(modelOn(even, 3).generate([1, 0, 0, 0, 0, 0], { maxNewTokens: 1 }));
    expect(even.fed.map((ids) => ids.length)).toEqual([3, 3]);
  });

  test("ends before a stop token, and goes past it when told to", async () => {
    const model = modelOn(new FakeSession());
    expect(await collect(model.generate([4, 5], { maxNewTokens: 4 }))).toEqual([]);
    const past = await collect(model.generate([4, 5], { maxNewTokens: 2, stopTokens: [] }));
    expect(past.map(({ token }) => token)).toEqual([9, 8]);
  });

  test("ends where the context does, and refuses a prompt that fills it", async () => {
    const model = modelOn(new FakeSession());
    expect(await collect(model.generate(Array(10).fill(0), { stopTokens: [] }))).toHaveLength(2);
    await expect(collect(model.generate(Array(12).fill(0)))).rejects.toMatchObject({ code: "context-full" });
  });

  test("a loop without room for the context ends there, and says what room there is", async () => {
    const model = modelOn(new FakeSession(), 4, undefined, 5);
    const answer = model.generate([0, 0, 0], { stopTokens: [] });
    const seen = [];
    let next = await answer.next();
    for (; !next.done; next = await answer.next()) seen.push(next.value.token);
    expect([seen.length, next.value]).toEqual([2, "length"]);
    const full = collect(model.generate(Array(5).fill(0)));
    await expect(full).rejects.toMatchObject({ code: "context-full", message: expect.stringContaining("context of 5") });
  });

  test("takes text and conversations", async () => {
    const session = new FakeSession();
    const model = modelOn(session);
    await collect(model.generate("12", { maxNewTokens: 1 }));
    await collect(model.generate([{ role: "user", content: "x" }], { maxNewTokens: 1 }));
    expect(session.fed).toEqual([[1, 2], [1, 2]]);
  });

  test.each([[[]], [[1, 10]], [[-1]], [[1.5]]])("refuses the tokens %j", async (ids) => {
    await expect(collect(modelOn(new FakeSession()).generate(ids))).rejects.toMatchObject({ code: "bad-input" });
  });

  test("a text that spans tokens ends the answer, and nothing of it is seen", async () => {
    const model = modelOn(new FakeSession());
    const all = await collect(model.generate([1, 2], { maxNewTokens: 6, stopTokens: [] }));
    expect(all.map(({ text }) => text).join("")).toBe("362486");
    const answer = model.generate([1, 2], { maxNewTokens: 6, stopTokens: [], stop: ["zz", "248"] });
    const seen = [];
    let next = await answer.next();
    for (; !next.done; next = await answer.next()) seen.push(next.value.token);
    expect([seen, next.value]).toEqual([[3, 6], "stop"]);
    // Held back as a beginning, then not one.
    const held = await collect(model.generate([1, 2], { maxNewTokens: 4, stopTokens: [], stop: "249" }));
    expect(held.map(({ token }) => token)).toEqual([3, 6, 2, 4]);
    expect(await collect(model.generate([1, 2], { maxNewTokens: 2, stop: "x" }))).toHaveLength(2);
  });

  test("what was held back before a stop token is shown", async () => {
    const answer = await collect(modelOn(new FakeSession()).generate([1, 2], { stopTokens: [4], stop: "629" }));
    expect(answer.map(({ text }) => text).join("")).toBe("362");
  });

  test("tells how likely each token was", async () => {
    const [first] = await collect(modelOn(new FakeSession()).generate([1, 2], { maxNewTokens: 1, logprobs: 2 }));
    // One logit is 1, nine are 0.
    const total = Math.log(Math.E + 9);
    expect(first).toMatchObject({ token: 3, top: [{ token: 3 }, { token: 0 }] });
    expect(first?.logprob).toBeCloseTo(1 - total, 6);
    expect(first?.top?.[1]?.logprob).toBeCloseTo(-total, 6);
  });

  test.each([
    [{ logprobs: -1 }, /'logprobs'/],
    [{ logprobs: true as unknown as number }, /'logprobs'/],
    [{ maxNewTokens: NaN }, /'maxNewTokens' is NaN/],
    [{ maxNewTokens: -1 }, /'maxNewTokens' is -1/],
    [{ maxNewTokens: 1.5 }, /'maxNewTokens' is 1.5/],
    [{ maxNewTokens: "3" as unknown as number }, /'maxNewTokens' is 3; whole numbers/],
    [{ stop: "" }, /empty text/],
    [{ stop: 5 as unknown as string }, /'stop' must be text/],
    [{ stop: ["x", null] as unknown as string[] }, /'stop' must be text/],
    [{ stop: "x", schema: true }, /give one of them/],
  ])("refuses %o", async (options, message) => {
    const answer = collect(modelOn(new FakeSession()).generate([1], options));
    await expect(answer).rejects.toMatchObject({ code: "bad-input", message: expect.stringMatching(message) });
  });

  test("a schema that cannot be held leaves the model usable", async () => {
    const model = modelOn(new FakeSession());
    await expect(collect(model.generate([1], { schema: true }))).rejects.toMatchObject({ code: "schema-unsupported" });
    expect(await collect(model.generate([1], { maxNewTokens: 1 }))).toHaveLength(1);
  });

  test("stops on request and frees its cache", async () => {
    const session = new FakeSession();
    const controller = new AbortController();
    const model = modelOn(session);
    const answer = model.generate([1, 2], { signal: controller.signal, stopTokens: [] });
    await answer.next();
    controller.abort();
    await expect(answer.next()).rejects.toMatchObject({ code: "aborted" });
    expect(session.live).toBe(0);
    expect(await collect(model.generate([1], { maxNewTokens: 1 }))).toHaveLength(1);
  });

  test("answers one call at a time, and none after dispose", async () => {
    const model = modelOn(new FakeSession());
    const answer = model.generate([1, 2]);
    await answer.next();
    await expect(collect(model.generate([1]))).rejects.toMatchObject({ code: "busy" });
    await expect(model.dispose()).rejects.toMatchObject({ code: "busy" });
    await answer.return("length");
    await model.dispose();
    await expect(collect(model.generate([1]))).rejects.toMatchObject({ code: "disposed" });
  });

  test("reports a failed run and a lost device by their codes", async () => {
    const session = new FakeSession();
    session.fail = new Error("out of memory");
    await expect(collect(modelOn(session).generate([1]))).rejects.toMatchObject({ code: "run-failed" });
    const lost = Promise.reject(Object.assign(new Error("gone"), { code: "device-lost" }));
    lost.catch(() => undefined);
    const dead = new FakeSession();
    dead.run = () => new Promise(() => undefined);
    await expect(collect(modelOn(dead, 4, lost).generate([1]))).rejects.toThrow(/gone/);
  });
});

test("score gives every position's logits, block by block", async () => {
  const blocks = await collect(modelOn(new FakeSession()).score([1, 2, 3, 4, 5], { chunk: 2 }));
  expect(blocks.map(({ start, rows }) => [start, rows])).toEqual([[0, 2], [2, 2], [4, 1]]);
  const rows = blocks.flatMap(({ rows, vocabulary, logits }) =>
    Array.from({ length: rows }, (_, row) => logits.subarray(row * vocabulary, (row + 1) * vocabulary).indexOf(1)),
  );
  expect(rows).toEqual([1, 3, 6, 0, 5]);
});

test.each([0, -2, 1.5, NaN])("score refuses blocks of %s positions", async (chunk) => {
  const model = modelOn(new FakeSession());
  const told = { code: "bad-input", message: expect.stringContaining(`'chunk' is ${chunk}`) };
  await expect(collect(model.score([1, 2], { chunk }))).rejects.toMatchObject(told);
  expect(await collect(model.score([1, 2]))).toHaveLength(1);
});

test("scores as many tokens as the context holds, and refuses more before any is fed", async () => {
  const session = new FakeSession();
  const model = modelOn(session);
  expect(await collect(model.score(Array(12).fill(0), { chunk: 12 }))).toHaveLength(1);
  const full = { code: "context-full", message: expect.stringContaining("13 tokens") };
  await expect(collect(model.score(Array(13).fill(0)))).rejects.toMatchObject(full);
  await expect(collect(model.logprobs(Array(13).fill(0)))).rejects.toMatchObject(full);
  const small = modelOn(session, 4, undefined, 5);
  await expect(collect(small.score(Array(6).fill(0)))).rejects.toMatchObject({ code: "context-full" });
  expect(session.fed).toHaveLength(1);
});

test("a graph that wants an unknown input is refused by its name", () => {
  const session = new FakeSession();
  session.inputNames.push("cache_position");
  expect(() => modelOn(session)).toThrow(expect.objectContaining({ code: "graph-unsupported", message: expect.stringContaining("cache_position") }));
});

test("states begin as zeros of their shape and are handed on", async () => {
  const fed: { conv: unknown[]; key: unknown[] }[] = [];
  const seen = (tensor: ort.Tensor | undefined) => [tensor?.type, tensor?.dims, [...(tensor?.data as Float32Array)]];
  const result = (value: number) => new ort.Tensor("float32", Float32Array.of(value), [1, 1, 1]);
  const session = {
    inputNames: ["input_ids", "past_conv.0", "past_key_values.1.key"],
    run: async (feeds: Record<string, ort.Tensor>) => {
      fed.push({ conv: seen(feeds["past_conv.0"]), key: seen(feeds["past_key_values.1.key"]) });
      return { logits: result(0), "present_conv.0": result(1), "present.1.key": result(2) };
    },
  } as unknown as ort.InferenceSession;
  const forward = new Forward(
    session,
    [
      { input: "past_conv.0", output: "present_conv.0", dtype: "float32", shape: ["batch_size", 4, 3] },
      {
        input: "past_key_values.1.key",
        output: "present.1.key",
        dtype: "float16",
        shape: ["batch_size", 2, "past_sequence_length", 8],
      },
    ],
    undefined,
  );
  await forward.step([1, 2], 0);
  await forward.step([3], 1);
  expect(forward.length).toBe(3);
  forward.reset();
  await forward.step([1], 1);
  const first = { conv: ["float32", [1, 4, 3], Array(12).fill(0)], key: ["float16", [1, 2, 0, 8], []] };
  const later = { conv: ["float32", [1, 1, 1], [1]], key: ["float32", [1, 1, 1], [2]] };
  expect(fed).toEqual([first, later, first]);
});

test("a cache that a step hands back as it is, is given back once", async () => {
  const disposed: string[] = [];
  const value = (name: string) => ({ dispose: () => void disposed.push(name) });
  const cache = value("cache");
  let count = 0;
  const session = {
    inputNames: ["input_ids", "past.0", "past_conv.0"],
    run: async () => ({ logits: new ort.Tensor("float32", Float32Array.of(1), [1, 1, 1]), "present.0": cache, "present_conv.0": value(`conv ${count++}`) }),
  } as unknown as ort.InferenceSession;
  const state = { dtype: "float32", shape: ["batch_size", 4, 3] } as const;
  const forward = new Forward(session, [{ input: "past.0", output: "present.0", ...state }, { input: "past_conv.0", output: "present_conv.0", ...state }], undefined);
  for (const token of [1, 2, 3]) await forward.step([token], 1);
  expect([disposed, forward.length]).toEqual([["conv 0", "conv 1"], 3]);
  forward.reset();
  expect([disposed, forward.length]).toEqual([["conv 0", "conv 1", "cache", "conv 2"], 0]);
});

test("session options are nested at their dots", () => {
  expect(nest({ "session.disable_quant_qdq": "1", "session.x.y": "2", z: "3" })).toEqual({
    session: { disable_quant_qdq: "1", x: { y: "2" } },
    z: "3",
  });
});
