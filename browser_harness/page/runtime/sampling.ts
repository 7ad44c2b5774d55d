import { TabwrightError } from "./errors.ts";

export interface SamplingOptions {
  /** 0 (the default) takes the most likely token. */
  readonly temperature?: number;
  /** Considers only so many of the most likely tokens, and those as likely as the last. */
  readonly topK?: number;
  /** Considers the most likely tokens until their probabilities sum to this. */
  readonly topP?: number;
  /** Divides positive logits of tokens that were there before, and multiplies negative ones. */
  readonly repetitionPenalty?: number;
  /** Makes the choices repeatable: an integer of 32 bits. */
  readonly seed?: number;
}

/** {@link SamplingOptions}, checked and complete. */
export type Sampling = Required<SamplingOptions>;

/**
 * Picks a token id from one row of logits; it remembers what it picked. Where `allowed` is
 * given, a bit for each token, only those whose bit is set are considered.
 */
export type Sampler = (row: Float32Array, allowed?: Int32Array) => number;

/** @throws TabwrightError `bad-input` naming the option that is out of range. */
export function checkSampling(options: SamplingOptions): Sampling {
  const { temperature = 0, topK = 0xffffffff, topP = 1, repetitionPenalty = 1 } = options;
  const within = (name: string, fits: boolean) => {
    if (!fits) throw new TabwrightError("bad-input", `${name} is out of range`);
  };
  within("temperature", temperature >= 0 && Number.isFinite(temperature));
  within("topK", topK >= 1);
  within("topP", topP > 0 && topP <= 1);
  within("repetitionPenalty", repetitionPenalty > 0 && Number.isFinite(repetitionPenalty));
  const seed = (options.seed ?? crypto.getRandomValues(new Uint32Array(1))[0] ?? 0) >>> 0;
  return { temperature, topK: Math.min(Math.floor(topK), 0xffffffff), topP, repetitionPenalty, seed };
}

/** Whether every choice is simply the largest logit's. */
export function isGreedy({ temperature, repetitionPenalty }: Sampling): boolean {
  return temperature === 0 && repetitionPenalty === 1;
}

/**
 * A sampler for one text, which begins with `prompt`.
 *
 * @throws TabwrightError as {@link checkSampling} does.
 */
export function makeSampler(options: SamplingOptions, prompt: readonly number[] = []): Sampler {
  const sampling = checkSampling(options);
  if (isGreedy(sampling)) return (row, allowed) => argmax(among(row, allowed));
  const seen = new Set(prompt);
  let drawn = 0;
  return (row, allowed) => {
    const considered = among(penalised(row, sampling.repetitionPenalty, seen), allowed);
    const token = draw(considered, sampling, drawn++);
    seen.add(token);
    return token;
  };
}

/** The index of the largest value; the first of equals, as PyTorch and NumPy do. */
export function argmax(row: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < row.length; i++) {
    if ((row[i] as number) > (row[best] as number)) best = i;
  }
  return best;
}

/** The row with all tokens ruled out but the allowed ones. */
function among(row: Float32Array, allowed: Int32Array | undefined): Float32Array {
  if (allowed === undefined) return row;
  return row.map((logit, token) => (((allowed[token >> 5] as number) >> (token & 31)) & 1 ? logit : -Infinity));
}

function penalised(row: Float32Array, penalty: number, seen: ReadonlySet<number>): Float32Array {
  if (penalty === 1) return row;
  const changed = row.slice();
  for (const token of seen) {
    const logit = row[token] as number;
    changed[token] = logit > 0 ? logit / penalty : logit * penalty;
  }
  return changed;
}

/**
 * The largest of logit / temperature + Gumbel noise is a draw from the softmax. It needs no
 * sum over the vocabulary, and the noise is a function of seed, draw and token, so that
 * the GPU ({@link GpuSampler}) draws the same.
 */
function draw(row: Float32Array, { temperature, topK, topP, seed }: Sampling, drawn: number): number {
  if (temperature === 0) return argmax(row);
  const scaled = Float64Array.from(row, (logit) => logit / temperature);
  const lowest = topK < row.length ? kthLargest(scaled, topK) : -Infinity;
  const kept = topP < 1 ? nucleus(scaled, lowest, topP) : lowest;
  const stream = mix((mix(seed) + drawn) >>> 0);
  const noisy = scaled.map((value, token) => (value >= kept ? value + gumbel(stream, token) : -Infinity));
  return argmax(noisy);
}

function kthLargest(values: Float64Array, k: number): number {
  return values.toSorted()[values.length - k] as number;
}

/** The last value of the shortest head, from `lowest` up, that holds `share` of its probability. */
function nucleus(values: Float64Array, lowest: number, share: number): number {
  const kept = values.filter((value) => value >= lowest).sort().reverse();
  const weights = kept.map((value) => Math.exp(value - (kept[0] as number)));
  let rest = share * weights.reduce((sum, weight) => sum + weight, 0);
  let count = 0;
  while (rest > 0 && count < kept.length) rest -= weights[count++] as number;
  return kept[count - 1] as number;
}

/** Standard Gumbel noise: of a stream and a token always the same. */
function gumbel(stream: number, token: number): number {
  const bits = mix((mix((stream ^ token) >>> 0) + stream) >>> 0) >>> 9;
  return -Math.log(-Math.log1p(-(bits + 0.5) / 2 ** 23));
}

/** A hash of 32 bits to 32 (https://nullprogram.com/blog/2018/07/31/, lowbias32). */
function mix(given: number): number {
  let x = Math.imul(given ^ (given >>> 16), 0x7feb352d);
  x = Math.imul(x ^ (x >>> 15), 0x846ca68b);
  return (x ^ (x >>> 16)) >>> 0;
}
