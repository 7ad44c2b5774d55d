import type { Choice, ScoredBlock, TokenLogprob } from "./api.ts";
import { checkCount } from "./counts.ts";

/**
 * Turns the logits of `tokens` into how likely each of them was.
 *
 * @param top how many of the most likely tokens to tell at each position.
 * @throws TabwrightError `bad-input`, and what `blocks` throws.
 */
export async function* logprobsOf(
  blocks: AsyncGenerator<ScoredBlock, void>,
  tokens: readonly number[],
  top: number,
): AsyncGenerator<TokenLogprob, void> {
  checkCount("top", top, 0);
  for await (const { start, rows, vocabulary, logits } of blocks) {
    for (let row = 0; row < rows; row++) {
      const position = start + row + 1;
      const token = tokens[position];
      if (token === undefined) return; // Nothing follows the last position.
      const values = logits.subarray(row * vocabulary, (row + 1) * vocabulary);
      yield { position, token, ...logprobIn(values, token, top) };
    }
  }
}

/** How likely `token` is by one row of logits, and the `top` most likely ones. */
export function logprobIn(row: Float32Array, token: number, top: number): Omit<TokenLogprob, "position" | "token"> {
  const total = logSumExp(row);
  const choice = (id: number): Choice => ({ token: id, logprob: (row[id] as number) - total });
  return { logprob: choice(token).logprob, top: mostLikely(row, top).map(choice) };
}

/** The logarithm of the softmax's denominator. */
export function logSumExp(values: Float32Array): number {
  let highest = -Infinity;
  for (const value of values) if (value > highest) highest = value;
  let sum = 0;
  for (const value of values) sum += Math.exp(value - highest);
  return highest + Math.log(sum);
}

/** The ids of the `count` largest values, largest first; the first of equals before the second. */
function mostLikely(values: Float32Array, count: number): number[] {
  const best: number[] = [];
  for (let id = 0; id < values.length; id++) {
    const value = values[id] as number;
    if (best.length === count && (count === 0 || value <= (values[best[count - 1] as number] as number))) continue;
    let at = best.length;
    while (at > 0 && (values[best[at - 1] as number] as number) < value) at--;
    best.splice(at, 0, id);
    best.length = Math.min(best.length, count);
  }
  return best;
}
