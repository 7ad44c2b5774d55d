import { USAGE } from "./gpu_usage.ts";
import type { Sampling } from "./sampling.ts";

const THREADS = 256;

/**
 * One workgroup chooses one token, the way that {@link makeSampler} does on the CPU: the
 * largest of logit / temperature + Gumbel noise, among the tokens above two thresholds.
 * A threshold is found digit by digit, as in a radix sort, on keys that order as the logits do.
 */
const SHADER = /* wgsl */ `
struct Settings {
  vocabulary: u32,
  top_k: u32,
  top_p: f32,
  sharpness: f32,
  noise: f32,
  penalty: f32,
  seed: u32,
}
struct Progress { drawn: u32 }

@group(0) @binding(0) var<storage, read> logits: array<f32>;
@group(0) @binding(1) var<uniform> settings: Settings;
@group(0) @binding(2) var<storage, read_write> progress: Progress;
@group(0) @binding(3) var<storage, read_write> seen: array<u32>;
@group(0) @binding(4) var<storage, read_write> next: array<u32>;
@group(0) @binding(5) var<storage, read> allowed: array<u32>;

const THREADS = ${THREADS}u;
const DIGITS = 8u;

/** By digit, then by thread: SwiftShader mixes up a thread's own array that is indexed by a variable. */
var<workgroup> sums: array<f32, DIGITS * THREADS>;
var<workgroup> best_value: array<f32, THREADS>;
var<workgroup> best_token: array<u32, THREADS>;
var<workgroup> shared_value: f32;
var<workgroup> shared_key: u32;

fn is_allowed(token: u32) -> bool {
  return ((allowed[token / 32u] >> (token % 32u)) & 1u) == 1u;
}

fn scaled(token: u32) -> f32 {
  var value = logits[token];
  if (((seen[token / 32u] >> (token % 32u)) & 1u) == 1u) {
    value = select(value * settings.penalty, value / settings.penalty, value > 0.0);
  }
  return value * settings.sharpness;
}

/** Unsigned numbers that order as floats do. */
fn key_of(value: f32) -> u32 {
  let bits = bitcast<u32>(value);
  return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

fn mix(given: u32) -> u32 {
  var x = given;
  x = (x ^ (x >> 16u)) * 0x7feb352du;
  x = (x ^ (x >> 15u)) * 0x846ca68bu;
  return x ^ (x >> 16u);
}

/** Standard Gumbel noise: of a seed, a draw and a token always the same. */
fn noise(stream: u32, token: u32) -> f32 {
  // 23 bits and a half are exact in a float, and neither 0 nor 1.
  let u = (f32(mix(mix(stream ^ token) + stream) >> 9u) + 0.5) * 0x1p-23;
  // The winners have small u, where log(1 - u) would lose all digits.
  let series = u * (1.0 + u * (0.5 + u * (1.0 / 3.0 + u * 0.25)));
  return -log(select(-log(1.0 - u), series, u < 0x1p-6));
}

/** Makes the largest value, and the smallest token that has it, every thread's. */
fn reduce(thread: u32, value: f32, token: u32) {
  best_value[thread] = value;
  best_token[thread] = token;
  for (var half = THREADS / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (thread < half) {
      let other = best_value[thread + half];
      if (other > best_value[thread] ||
          (other == best_value[thread] && best_token[thread + half] < best_token[thread])) {
        best_value[thread] = other;
        best_token[thread] = best_token[thread + half];
      }
    }
  }
  workgroupBarrier();
}

/** What a token counts for: 1, or its probability times a constant. */
fn weight(value: f32, highest: f32, by_probability: bool) -> f32 {
  return select(1.0, exp(value - highest), by_probability);
}

/**
 * The largest key that, with all above it, holds \`share\` of the weight of the keys from
 * \`lowest\` on, or \`share\` of them where weights are counts.
 */
fn threshold(thread: u32, highest: f32, by_probability: bool, share: f32, lowest: u32) -> u32 {
  var prefix = 0u;
  var wanted = share;
  for (var level = 0u; level < 11u; level++) {
    let shift = 30u - 3u * level;
    for (var digit = 0u; digit < DIGITS; digit++) { sums[digit * THREADS + thread] = 0.0; }
    for (var token = thread; token < settings.vocabulary; token += THREADS) {
      let value = scaled(token);
      let key = key_of(value);
      // At the first level nothing is fixed yet, and a shift by 33 would be by 1.
      let fits = level == 0u || (key >> (shift + 3u)) == prefix;
      if (fits && key >= lowest && is_allowed(token)) {
        sums[((key >> shift) & 7u) * THREADS + thread] += weight(value, highest, by_probability);
      }
    }
    for (var half = THREADS / 2u; half > 0u; half /= 2u) {
      workgroupBarrier();
      if (thread < half) {
        for (var digit = 0u; digit < DIGITS; digit++) {
          let at = digit * THREADS + thread;
          sums[at] += sums[at + half];
        }
      }
    }
    workgroupBarrier();
    if (thread == 0u) {
      if (level == 0u && by_probability) {
        var all = 0.0;
        for (var digit = 0u; digit < DIGITS; digit++) { all += sums[digit * THREADS]; }
        wanted *= all;
      }
      var digit = DIGITS - 1u;
      var lowest_filled = digit;
      loop {
        let held = sums[digit * THREADS];
        if (held > 0.0) { lowest_filled = digit; }
        if (held > 0.0 && held >= wanted) { break; }
        wanted -= held;
        if (digit == 0u) {
          // Rounding left a little over: the last digit that has any.
          digit = lowest_filled;
          break;
        }
        digit--;
      }
      shared_key = digit;
    }
    prefix = (prefix << 3u) | workgroupUniformLoad(&shared_key);
  }
  return prefix;
}

@compute @workgroup_size(${THREADS})
fn choose(@builtin(local_invocation_index) thread: u32) {
  var highest = -0x1p+127;
  for (var token = thread; token < settings.vocabulary; token += THREADS) {
    if (is_allowed(token)) { highest = max(highest, scaled(token)); }
  }
  reduce(thread, highest, thread);
  highest = best_value[0];
  workgroupBarrier();

  var lowest = 0u;
  if (settings.top_k < settings.vocabulary) {
    lowest = threshold(thread, highest, false, f32(settings.top_k), lowest);
  }
  if (settings.top_p < 1.0) {
    lowest = threshold(thread, highest, true, settings.top_p, lowest);
  }

  let stream = mix(mix(settings.seed) + progress.drawn);
  var best = -0x1p+127;
  var chosen = settings.vocabulary;
  for (var token = thread; token < settings.vocabulary; token += THREADS) {
    let value = scaled(token);
    if (key_of(value) >= lowest && is_allowed(token)) {
      let drawn = value + settings.noise * noise(stream, token);
      if (chosen == settings.vocabulary || drawn > best) {
        best = drawn;
        chosen = token;
      }
    }
  }
  reduce(thread, best, chosen);
  if (thread == 0u) {
    let token = best_token[0];
    next[0] = token;
    next[1] = 0u;
    seen[token / 32u] |= 1u << (token % 32u);
    progress.drawn += 1u;
  }
}
`;

/** Chooses tokens from logits that are in a buffer of the GPU, into one that is fed next. */
export class GpuSampler {
  readonly #device: GPUDevice;
  readonly #vocabulary: number;
  readonly #pipeline: GPUComputePipeline;
  readonly #group: GPUBindGroup;
  readonly #settings: GPUBuffer;
  readonly #progress: GPUBuffer;
  readonly #seen: GPUBuffer;
  readonly #allowed: GPUBuffer;

  /**
   * @param logits float32 [vocabulary].
   * @param next int64 [1, 1].
   */
  constructor(device: GPUDevice, vocabulary: number, logits: GPUBuffer, next: GPUBuffer) {
    this.#device = device;
    this.#vocabulary = vocabulary;
    this.#pipeline = device.createComputePipeline({
      label: "sampler",
      layout: "auto",
      compute: { module: device.createShaderModule({ code: SHADER }) },
    });
    const make = (size: number, usage: number) =>
      device.createBuffer({ label: "sampler", size, usage: usage | USAGE.COPY_DST });
    const bits = 4 * Math.ceil(vocabulary / 32);
    this.#settings = make(32, USAGE.UNIFORM);
    this.#progress = make(4, USAGE.STORAGE);
    this.#seen = make(bits, USAGE.STORAGE);
    this.#allowed = make(bits, USAGE.STORAGE);
    const buffers = [logits, this.#settings, this.#progress, this.#seen, next, this.#allowed];
    this.#group = device.createBindGroup({
      layout: this.#pipeline.getBindGroupLayout(0),
      entries: buffers.map((buffer, binding) => ({ binding, resource: { buffer } })),
    });
  }

  /** Starts a text: with `sampling`'s settings, from its seed on, after `prompt`. */
  start(sampling: Sampling, prompt: readonly number[]): void {
    const settings = new DataView(new ArrayBuffer(32));
    const drawing = sampling.temperature > 0;
    settings.setUint32(0, this.#vocabulary, true);
    settings.setUint32(4, Math.min(sampling.topK, this.#vocabulary), true);
    settings.setFloat32(8, sampling.topP, true);
    settings.setFloat32(12, drawing ? 1 / sampling.temperature : 1, true);
    settings.setFloat32(16, drawing ? 1 : 0, true);
    settings.setFloat32(20, sampling.repetitionPenalty, true);
    settings.setUint32(24, sampling.seed, true);
    const seen = new Uint32Array(this.#seen.size / 4);
    for (const token of prompt) seen[token >> 5] = (seen[token >> 5] as number) | (1 << (token & 31));
    this.#device.queue.writeBuffer(this.#settings, 0, settings.buffer);
    this.#device.queue.writeBuffer(this.#progress, 0, Uint32Array.of(0));
    this.#device.queue.writeBuffer(this.#seen, 0, seen);
    this.allow(new Int32Array(seen.length).fill(-1));
  }

  /** Considers only the tokens whose bits are set from now on: int32 [ceil(vocabulary / 32)]. */
  allow(bits: Int32Array<ArrayBuffer>): void {
    this.#device.queue.writeBuffer(this.#allowed, 0, bits);
  }

  /** Appends the choice of one token. */
  encode(encoder: GPUCommandEncoder): void {
    const pass = encoder.beginComputePass();
    pass.setPipeline(this.#pipeline);
    pass.setBindGroup(0, this.#group);
    pass.dispatchWorkgroups(1);
    pass.end();
  }

  dispose(): void {
    for (const buffer of [this.#settings, this.#progress, this.#seen, this.#allowed]) buffer.destroy();
  }
}
