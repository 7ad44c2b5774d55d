import { expect } from "vitest";

import type { Attention } from "../runtime/attention_nodes.ts";
import { pick } from "./coded_weight.ts";

/** What rounding to float32 makes of 1 at most. */
const UNIT = 2 ** -24;

/** Queries, keys and values of positions one after the other, and the angles by which they are turned. */
export interface AttentionText {
  readonly attention: Attention;
  /** [positions, heads * width] */
  readonly queries: Float32Array;
  readonly keys: Float32Array;
  readonly values: Float32Array;
  /** [positions, pairs] */
  readonly cosines: Float32Array;
  readonly sines: Float32Array;
  readonly pairs: number;
}

/** Numbers of either sign around 1, another for every `seed`. */
export const numbers = (length: number, seed: number) => Float32Array.from({ length }, (_, at) => (pick(at + 7919 * seed, 2001) - 1000) / 500);

export function attentionText(positions: number, change: Partial<Attention> & { readonly pairs?: number } = {}): AttentionText {
  const { pairs = 0, ...rest } = change;
  const attention: Attention = {
    ...{ heads: 4, keyHeads: 2, width: 16, scale: 0.25, window: 0 },
    ...{ inputs: ["q", "k", "v"], rotation: pairs > 0 ? ["cosines", "sines"] : undefined, output: "a" },
    ...{ past: ["past.k", "past.v"], present: ["present.k", "present.v"] },
    ...rest,
  };
  const { heads, keyHeads, width } = attention;
  const angles = Array.from({ length: positions * pairs }, (_, at) => Math.floor(at / pairs) / 10 ** ((at % pairs) / pairs));
  return {
    attention,
    queries: numbers(positions * heads * width, 1),
    keys: numbers(positions * keyHeads * width, 2),
    values: numbers(positions * keyHeads * width, 3),
    cosines: Float32Array.from(angles, Math.cos),
    sines: Float32Array.from(angles, Math.sin),
    pairs,
  };
}

/** A head's values, turned as ONNX's RotaryEmbedding has it: the first of a pair with the one `pairs` after it. */
function turned({ cosines, sines, pairs, attention: { width } }: AttentionText, all: Float32Array, heads: number, position: number, head: number): number[] {
  const from = (position * heads + head) * width;
  const x = [...all.subarray(from, from + width)];
  const result = [...x];
  for (let pair = 0; pair < pairs; pair++) {
    const [cosine, sine] = [cosines[position * pairs + pair] as number, sines[position * pairs + pair] as number];
    const [a, b] = [x[pair] as number, x[pair + pairs] as number];
    result[pair] = a * cosine - b * sine;
    result[pair + pairs] = b * cosine + a * sine;
  }
  return result;
}

/** What a position's head is to be, and by how much rounding may have it be off. */
export interface Attended {
  readonly exact: readonly number[];
  readonly allowed: number;
}

/**
 * Attention by its definition, in float64.
 *
 * A score is off by as much as rounding its width of products, its rotations and its scale; a weight's share by as
 * much as two scores, its own and the largest, and exponentials are; a sum by rounding it once a position.
 */
export function attended(text: AttentionText, position: number, head: number): Attended {
  const { attention, queries, keys, values } = text;
  const { heads, keyHeads, width, scale, window } = attention;
  const keyHead = Math.floor(head / (heads / keyHeads));
  const query = turned(text, queries, heads, position, head);
  const first = window > 0 ? Math.max(0, position - window + 1) : 0;
  const seen = Array.from({ length: position + 1 - first }, (_, index) => first + index);
  let off = 0;
  const scores = seen.map((other) => {
    const key = turned(text, keys, keyHeads, other, keyHead);
    const products = query.map((value, at) => value * (key[at] as number) * scale);
    off = Math.max(off, (width + 12) * UNIT * products.reduce((sum, each) => sum + Math.abs(each), 0) + 4 * UNIT * scale * width * 16);
    return products.reduce((sum, each) => sum + each, 0);
  });
  const most = Math.max(...scores);
  const weights = scores.map((score) => Math.exp(score - most));
  const total = weights.reduce((sum, each) => sum + each, 0);
  const exact = Array.from({ length: width }, (_, column) =>
    seen.reduce((sum, other, index) => sum + ((weights[index] as number) / total) * (values[(other * keyHeads + keyHead) * width + column] as number), 0),
  );
  const largest = Math.max(...seen.flatMap((other) => [...values.subarray((other * keyHeads + keyHead) * width, (other * keyHeads + keyHead + 1) * width)].map(Math.abs)));
  return { exact, allowed: (4 * off + (2 * seen.length + 20) * UNIT) * largest };
}

/** Checks what attention made of positions from `start` on: [positions, heads * width]. */
export function check(text: AttentionText, start: number, found: Float32Array): void {
  const { heads, width } = text.attention;
  for (let row = 0; row < found.length / (heads * width); row++) {
    for (let head = 0; head < heads; head++) {
      const { exact, allowed } = attended(text, start + row, head);
      exact.forEach((wanted, column) => {
        const value = found[(row * heads + head) * width + column] as number;
        // Not "error > allowed", which NaN would pass.
        if (!(Math.abs(value - wanted) <= allowed)) expect.fail(`position ${start + row}, head ${head}, ${column}: ${value}, not ${wanted} within ${allowed}`);
      });
    }
  }
}
