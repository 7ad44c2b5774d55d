import { TabwrightError, throwIfAborted } from "./errors.ts";
import type { Logits } from "./forward.ts";
import { GpuSampler } from "./gpu_sampler.ts";
import type { Continuation, Loop, Probed } from "./loop.ts";
import type { Loss } from "./loss.ts";
import type { Resident } from "./resident.ts";
import { checkSampling, isGreedy } from "./sampling.ts";
import { TokenReader } from "./token_reader.ts";

/** Tokens that may be on their way to the page: while one is read, the GPU makes the next. */
const AHEAD = 3;
/**
 * What the cache has room for at first: short texts need no more, and attention takes longer, the
 * more room there is.
 */
const FIRST_POSITIONS = 256;

/** How the cache may grow. */
export interface CacheGrowth {
  /**
   * About how many bytes it grows by at a time, at most; a small one doubles. It is copied then,
   * and the runs are recorded anew.
   */
  readonly growthBytes: number;
  /** Positions that it may take, in whole steps of the smallest size. */
  readonly affordable: number;
}

/** Everything on the GPU: states in place, the token chosen there and fed to the next step. */
export class ResidentLoop implements Loop {
  readonly #resident: Resident;
  readonly #chunks: readonly number[];
  readonly most: number;
  readonly #growth: number;
  readonly #sampler: GpuSampler;
  readonly #reader: TokenReader;
  #length = 0;

  /**
   * @param chunks sizes of prefill steps, each a multiple of the next; the last may be padded.
   */
  constructor(
    resident: Resident,
    device: GPUDevice,
    loss: Loss,
    chunks: readonly number[],
    facts: { readonly vocab_size: number; readonly context_length: number },
    { growthBytes, affordable }: CacheGrowth,
  ) {
    this.#resident = resident;
    this.#chunks = chunks;
    const { cache } = resident;
    const size = chunks.at(-1) as number;
    this.most = Math.min(this.#whole(facts.context_length), Math.floor(cache.most / size) * size, affordable);
    this.#growth = this.#whole(Math.max(growthBytes / cache.bytesPerPosition, 1));
    this.#sampler = new GpuSampler(device, facts.vocab_size, resident.logits, resident.next);
    this.#reader = new TokenReader(device, resident.next, loss, AHEAD);
  }

  /**
   * Records the decode step and, when `prefill` is wanted, the shortest one of a prompt, so
   * that the first text need not wait for that.
   *
   * @throws TabwrightError `run-failed` where a GPU's runs cannot be recorded.
   */
  async warmUp(prefill: boolean): Promise<void> {
    await this.#reserve(this.#whole(1));
    await this.#resident.recordDecode(0);
    if (prefill) await this.#prefill([0], undefined);
    this.reset();
  }

  get chunk(): number {
    return this.#chunks[0] as number;
  }

  async *tokens(
    ids: readonly number[],
    { sampling, count, signal, constraint, onLogits }: Continuation,
  ): AsyncGenerator<number, void> {
    const settings = checkSampling(sampling);
    const choosing = !isGreedy(settings) || constraint !== undefined;
    if (choosing) this.#sampler.start(settings, ids);
    // A token that the page has a say in, or whose logits it wants, is waited for.
    const ahead = constraint || onLogits ? 1 : AHEAD;
    const choose = (encoder: GPUCommandEncoder) => {
      if (choosing) this.#sampler.encode(encoder);
    };
    const underWay: Promise<number>[] = [];
    let failed: { readonly error: unknown } | undefined;
    const read = async () => {
      // Found out while the GPU computes the logits that it is for.
      if (constraint) this.#sampler.allow(await constraint.allowed());
      const token = this.#reader.read(choose);
      token.catch(() => undefined); // It is awaited only when its turn comes.
      underWay.push(token);
    };
    try {
      await this.#foresee(ids.length + count - 1);
      await this.#prefill(ids, signal);
      await read();
      for (let made = 1; made <= count; made++) {
        try {
          while (!failed && underWay.length < ahead && this.#length < ids.length + count - 1) {
            throwIfAborted(signal);
            await this.#decode();
            await read();
          }
        } catch (error) {
          failed = { error };
        }
        // Tokens that were on their way before a step failed are as good as any.
        if (failed && underWay.length === 0) throw failed.error;
        const token = (await underWay.shift()) as number;
        throwIfAborted(signal);
        constraint?.accept(token);
        onLogits?.(await this.#resident.readLogits());
        yield token;
      }
    } finally {
      // The next text's first step must not overtake them.
      await Promise.allSettled(underWay);
    }
  }

  async score(tokens: readonly number[]): Promise<Logits> {
    await this.#reserve(this.#length + tokens.length);
    const logits = await this.#resident.score(tokens, this.#length);
    this.#length += tokens.length;
    return logits;
  }

  async *probe(
    prompt: readonly number[],
    rest: readonly number[],
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Probed, void> {
    let position = prompt.length - 1;
    // A step that the context has no room for is never taken.
    for (const chunk of this.#chunks.filter((size) => size <= this.most)) {
      await this.#prefill(prompt, signal, [chunk]);
      yield { position, how: `prefill in steps of ${chunk}`, logits: await this.#resident.readLogits() };
    }
    for (const token of rest) {
      throwIfAborted(signal);
      this.#resident.choose(token);
      await this.#decode();
      yield { position: ++position, how: "a single token", logits: await this.#resident.readLogits() };
    }
  }

  reset(): void {
    this.#length = 0;
  }

  dispose(): void {
    this.#reader.dispose();
    this.#sampler.dispose();
    this.#resident.dispose();
  }

  async #prefill(
    ids: readonly number[],
    signal: AbortSignal | undefined,
    sizes: readonly number[] = this.#chunks,
  ): Promise<void> {
    const least = sizes.at(-1) as number;
    await this.#reserve(this.#whole(Math.ceil(ids.length / least) * least));
    for (let start = 0; start < ids.length; ) {
      throwIfAborted(signal);
      const rest = ids.length - start;
      const chunk = sizes.find((size) => size <= rest) ?? least;
      const tokens = ids.slice(start, start + chunk);
      await this.#resident.prefill(tokens, start, chunk);
      start += tokens.length;
    }
    this.#length = ids.length;
  }

  async #decode(): Promise<void> {
    await this.#reserve(this.#length + 1);
    await this.#resident.decode(this.#length++);
  }

  /** Makes room for a text that will be so long, if that is one step: it then grows no more. */
  async #foresee(positions: number): Promise<void> {
    const next = this.#resident.cache.capacity + this.#growth;
    if (positions <= Math.min(next, this.most)) await this.#reserve(positions);
  }

  async #reserve(positions: number): Promise<void> {
    const { capacity } = this.#resident.cache;
    if (positions <= capacity) return;
    if (positions > this.most) {
      throw new TabwrightError("context-full", `the cache has no room for ${positions} tokens, only for ${this.most}`);
    }
    const step = Math.min(this.#growth, this.#whole(Math.max(capacity, FIRST_POSITIONS)));
    const steps = Math.ceil((positions - capacity) / step);
    const wanted = Math.min(capacity + steps * step, this.most);
    await this.#resident.grow(wanted, this.#length);
  }

  /** `positions` rounded up to whole chunks of the smallest size. */
  #whole(positions: number): number {
    const size = this.#chunks.at(-1) as number;
    return Math.ceil(positions / size) * size;
  }
}
