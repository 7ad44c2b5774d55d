import { breathe } from "./breathe.ts";
import type { Constraint } from "./constraint.ts";
import { throwIfAborted } from "./errors.ts";
import type { Forward, Logits } from "./forward.ts";
import { makeSampler, type SamplingOptions } from "./sampling.ts";

/** What there is to say about a continuation besides its beginning. */
export interface Continuation {
  readonly sampling: SamplingOptions;
  /** How many tokens may be asked for. */
  readonly count: number;
  readonly signal: AbortSignal | undefined;
  /** What every token must fit, if anything. */
  readonly constraint?: Constraint | undefined;
  /** Hears of the logits that a token is chosen from, float32 [vocabulary], before it is given. */
  readonly onLogits?: ((row: Float32Array) => void) | undefined;
}

/** Logits that a text came to, and how it was fed to get there. */
export interface Probed {
  readonly position: number;
  readonly how: string;
  /** Of one position, float32 [vocabulary]. */
  readonly logits: Float32Array;
}

/** How a loaded model makes tokens. One call at a time, each on a text of its own. */
export interface Loop {
  /** Positions that one step takes at most. */
  readonly chunk: number;
  /** Positions that it has room for, whatever the model's context. */
  readonly most: number;

  /**
   * The tokens that follow `ids`, without end but for `count`. A loop may be ahead of the
   * token that it gives; whoever stops reading never hears of the rest.
   *
   * @throws TabwrightError `aborted`, `bad-input`, `context-full`, `run-failed`, `device-lost`.
   */
  tokens(ids: readonly number[], continuation: Continuation): AsyncGenerator<number, void>;

  /**
   * Feeds `tokens` after those of earlier calls and gives the logits of each.
   *
   * @throws TabwrightError `context-full`, `run-failed`, `device-lost`.
   */
  score(tokens: readonly number[]): Promise<Logits>;

  /**
   * Feeds `prompt` in every way in which prompts are fed, then each of `rest` as if it had been
   * chosen, and gives the logits after the prompt's end and after each of the others.
   *
   * @throws TabwrightError as {@link tokens} does.
   */
  probe(
    prompt: readonly number[],
    rest: readonly number[],
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Probed, void>;

  /** Forgets the text. */
  reset(): void;

  /** Frees what the loop holds on the GPU besides the session. */
  dispose(): void;
}

/** The loop for every device: the cache grows, logits come to the CPU, the token is chosen there. */
export class PlainLoop implements Loop {
  readonly chunk: number;
  readonly most: number;
  readonly #forward: Forward;

  /** @param most positions that the cache may take. */
  constructor(forward: Forward, chunk: number, most: number) {
    this.#forward = forward;
    this.chunk = chunk;
    this.most = most;
  }

  async *tokens(
    ids: readonly number[],
    { sampling, count, signal, constraint, onLogits }: Continuation,
  ): AsyncGenerator<number, void> {
    const sample = makeSampler(sampling, ids);
    let logits = await this.#prefill(ids, signal);
    for (let made = 1; made <= count; made++) {
      throwIfAborted(signal);
      const token = sample(logits.data, await constraint?.allowed());
      constraint?.accept(token);
      onLogits?.(logits.data);
      yield token;
      if (made === count) return;
      await breathe();
      throwIfAborted(signal);
      logits = await this.#forward.step([token], 1);
    }
  }

  async score(tokens: readonly number[]): Promise<Logits> {
    return await this.#forward.step(tokens, 0);
  }

  async *probe(
    prompt: readonly number[],
    rest: readonly number[],
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Probed, void> {
    const { data } = await this.#prefill(prompt, signal);
    let position = prompt.length - 1;
    yield { position, how: `prefill in steps of ${this.chunk}`, logits: data };
    for (const token of rest) {
      throwIfAborted(signal);
      const step = await this.#forward.step([token], 1);
      yield { position: ++position, how: "a single token", logits: step.data };
    }
  }

  reset(): void {
    this.#forward.reset();
  }

  dispose(): void {
    this.reset();
  }

  async #prefill(ids: readonly number[], signal: AbortSignal | undefined): Promise<Logits> {
    throwIfAborted(signal);
    const tail = Math.floor((ids.length - 1) / this.chunk) * this.chunk;
    for (let start = 0; start < tail; start += this.chunk) {
      await this.#forward.step(ids.slice(start, start + this.chunk), 1);
      await breathe();
      throwIfAborted(signal);
    }
    return await this.#forward.step(ids.slice(tail), 1);
  }
}
