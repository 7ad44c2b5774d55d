import { TabwrightError } from "./errors.ts";

export interface SamplingOptions {
  /** 0 (the default) takes the most likely token. */
  readonly temperature?: number;
  /** Considers only so many of the most likely tokens. */
  readonly topK?: number;
  /** Considers the most likely tokens until their probabilities sum to this. */
  readonly topP?: number;
  /** Makes the choices repeatable: an integer of 32 bits. */
  readonly seed?: number;
}

/** Picks a token id from one row of logits. */
export type Sampler = (row: Float32Array) => number;

/** @throws TabwrightError `bad-input` naming the option that is out of range. */
export function makeSampler(options: SamplingOptions): Sampler {
  const { temperature = 0, topK = Infinity, topP = 1 } = options;
  const within = (name: string, fits: boolean) => {
    if (!fits) throw new TabwrightError("bad-input", `${name} is out of range`);
  };
  within("temperature", temperature >= 0 && Number.isFinite(temperature));
  within("topK", topK >= 1);
  within("topP", topP > 0 && topP <= 1);
  if (temperature === 0) return argmax;
  const random = makeRandom(options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0);
  return (row) => draw(row, temperature, topK, topP, random());
}

/** The index of the largest value; the first of equals, as PyTorch and NumPy do. */
export function argmax(row: Float32Array): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) {
    if ((row[i] as number) > (row[best] as number)) best = i;
  }
  return best;
}

function draw(row: Float32Array, temperature: number, topK: number, topP: number, at: number): number {
  const highest = row[argmax(row)] as number;
  const weights = Float64Array.from(row, (logit) => Math.exp((logit - highest) / temperature));
  // Only a cut-off needs the order: sorting a vocabulary costs more than drawing from it.
  const ids = Uint32Array.from(weights.keys());
  let kept: Uint32Array = ids;
  if (topK < ids.length || topP < 1) {
    ids.sort((a, b) => (weights[b] as number) - (weights[a] as number) || a - b);
    kept = nucleus(ids.subarray(0, Math.min(topK, ids.length)), weights, topP);
  }
  let rest = at * sum(kept, weights);
  for (const id of kept) {
    rest -= weights[id] as number;
    if (rest < 0) return id;
  }
  return kept[kept.length - 1] as number;
}

/** The shortest head of `ids` (most likely first) that holds `share` of their weight. */
function nucleus(ids: Uint32Array, weights: Float64Array, share: number): Uint32Array {
  let rest = share * sum(ids, weights);
  let count = 0;
  while (rest > 0 && count < ids.length) rest -= weights[ids[count++] as number] as number;
  return ids.subarray(0, count);
}

function sum(ids: Uint32Array, weights: Float64Array): number {
  let total = 0;
  for (const id of ids) total += weights[id] as number;
  return total;
}

/** Uniform numbers in [0, 1): the mulberry32 generator. */
export function makeRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
