import { expect, test } from "vitest";

import { chancesOf } from "../measure/chances.ts";
import { generateUntil } from "../measure/until.ts";
import type { GeneratedToken, GenerateOptions, Model, ScoredBlock } from "../runtime/api.ts";

/** Softmax of ln(weights) is weights / sum: easy to compute by hand. */
async function* blocks(): AsyncGenerator<ScoredBlock, void> {
  const rows = [[1, 4, 3], [6, 1, 1], [2, 2, 4]];
  const logits = (some: number[][]) => Float32Array.from(some.flat(), Math.log);
  yield { start: 0, rows: 2, vocabulary: 3, logits: logits(rows.slice(0, 2)) };
  yield { start: 2, rows: 1, vocabulary: 3, logits: logits(rows.slice(2)) };
}

test("each wanted token's share of its row, in the order of asking", async () => {
  const found = await chancesOf(blocks(), [[2, 0], [0, 2], [2, 2]]);
  const shares = found.map(({ logprob }) => Math.exp(logprob));
  expect(shares).toEqual([expect.closeTo(1 / 4, 6), expect.closeTo(3 / 8, 6), expect.closeTo(1 / 2, 6)]);
  expect(found.map(({ likeliest }) => likeliest)).toEqual([2, 1, 2]);
});

const WORDS = ["one", " two", " three", " four"];

/** Says {@link WORDS}, the token of each being its place. */
function counter(asked: GenerateOptions[] = []): Pick<Model, "generate" | "detokenize" | "info"> {
  return {
    info: { facts: { eos_token_ids: [9] } },
    async *generate(_: unknown, options: GenerateOptions): AsyncGenerator<GeneratedToken, "stop" | "length"> {
      asked.push(options);
      for (const [token, text] of WORDS.entries()) {
        if (options.stopTokens?.includes(token)) return "stop";
        yield { token, text, atMs: token };
      }
      return "length";
    },
    detokenize: async (ids: readonly number[]) => ids.map((id) => WORDS[id]).join(""),
  } as unknown as Pick<Model, "generate" | "detokenize" | "info">;
}

test("a continuation ends with the token that completes a stop sequence", async () => {
  expect(await generateUntil(counter(), [1], 8, ["o t"], [])).toEqual({
    tokens: [0, 1, 2],
    text: "one two three",
    at_ms: [0, 1, 2],
  });
  expect((await generateUntil(counter(), [1], 8, ["never"], [])).tokens).toEqual([0, 1, 2, 3]);
});

test("a continuation ends before a stop token, and before the model's own end", async () => {
  const asked: GenerateOptions[] = [];
  expect((await generateUntil(counter(asked), [1], 8, [], [2])).text).toBe("one two");
  expect(asked).toEqual([{ maxNewTokens: 8, stopTokens: [9, 2] }]);
});
