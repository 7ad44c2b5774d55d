import type { ScoredBlock } from "../runtime/index.ts";
import { logSumExp } from "../runtime/logprobs.ts";
import { argmax } from "../runtime/sampling.ts";
import type { TokenChance } from "./schema.ts";

/** How likely is `token` right after row `row` of the tokens that are fed? */
export type Wanted = readonly [row: number, token: number];

/**
 * Answers each of `wanted` from the logits of the tokens that were fed.
 *
 * The same row may be asked for several tokens: the choices of one question cost one pass.
 */
export async function chancesOf(
  blocks: AsyncIterable<ScoredBlock>,
  wanted: readonly Wanted[],
): Promise<TokenChance[]> {
  const found: TokenChance[] = [];
  for await (const { start, rows, vocabulary, logits } of blocks) {
    wanted.forEach(([row, token], index) => {
      if (row < start || row >= start + rows) return;
      const values = logits.subarray((row - start) * vocabulary, (row - start + 1) * vocabulary);
      const logprob = (values[token] as number) - logSumExp(values);
      found[index] = { logprob, likeliest: argmax(values) };
    });
  }
  return found;
}
