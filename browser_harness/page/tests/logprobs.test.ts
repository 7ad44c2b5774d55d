import { expect, test } from "vitest";

import type { ScoredBlock } from "../runtime/api.ts";
import { logprobsOf } from "../runtime/logprobs.ts";

/** Softmax of ln(weights) is weights / sum: easy to compute by hand. */
async function* blocks(...rows: number[][]): AsyncGenerator<ScoredBlock, void> {
  for (const [start, row] of rows.entries()) {
    yield { start, rows: 1, vocabulary: row.length, logits: Float32Array.from(row, Math.log) };
  }
}

async function all(tokens: readonly number[], top: number, ...rows: number[][]) {
  const found = [];
  for await (const item of logprobsOf(blocks(...rows), tokens, top)) found.push(item);
  return found;
}

test("each token's share of its position, and the likeliest ones", async () => {
  const found = await all([0, 2, 1], 2, [1, 4, 3], [6, 1, 1], [1, 1, 1]);
  expect(found.map(({ position, token }) => [position, token])).toEqual([[1, 2], [2, 1]]);
  expect(found.map(({ logprob }) => Math.exp(logprob))).toEqual([expect.closeTo(3 / 8, 6), expect.closeTo(1 / 8, 6)]);
  expect(found.map(({ top }) => top.map(({ token }) => token))).toEqual([[1, 2], [0, 1]]);
  expect(Math.exp(found[0]?.top[0]?.logprob as number)).toBeCloseTo(4 / 8, 6);
});

test("no alternatives unless asked, and no more than there are", async () => {
  expect((await all([0, 1], 0, [1, 1]))[0]?.top).toEqual([]);
  expect((await all([0, 1], 9, [1, 3]))[0]?.top.map(({ token }) => token)).toEqual([1, 0]);
});

test("top must be a count", async () => {
  await expect(all([0, 1], -1, [1, 1])).rejects.toMatchObject({ code: "bad-input" });
});
