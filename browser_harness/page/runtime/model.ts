import { breathe } from "./breathe.ts";
import { TabwrightError, throwIfAborted } from "./errors.ts";
import type { Forward, Logits } from "./forward.ts";
import { makeSampler, type SamplingOptions } from "./sampling.ts";
import type { Adapter, LoadTimings, Model as ModelFacts } from "./schema.ts";
import { IncrementalDecoder } from "./text.ts";
import type { Message, Tokenizer } from "./tokenizer.ts";

/** Text, a conversation, or token ids as they are. */
export type Prompt = string | readonly Message[] | readonly number[];

export interface GenerateOptions extends SamplingOptions {
  /** Default: until a stop token or the end of the context. */
  readonly maxNewTokens?: number;
  /** Default: the model's own end tokens. An empty list never stops early. */
  readonly stopTokens?: readonly number[];
  readonly signal?: AbortSignal | undefined;
}

/** A token as it comes: its text (maybe empty) and when, in ms from the call. */
export interface GeneratedToken {
  readonly token: number;
  readonly text: string;
  readonly atMs: number;
}

/** Logits of positions `start`..., float32 [rows, vocabulary]. */
export interface ScoredBlock {
  readonly start: number;
  readonly rows: number;
  readonly vocabulary: number;
  readonly logits: Float32Array;
}

/** What was loaded, on what. */
export interface LoadedFacts {
  readonly target: string;
  /** Why this target, when the runtime chose it. */
  readonly because: string | undefined;
  readonly facts: ModelFacts;
  readonly timings: LoadTimings;
  readonly adapter: Adapter | undefined;
  readonly software: boolean;
  readonly threads: number;
  /** True when the manifest came from the store because the network is off. */
  readonly offline: boolean;
  readonly onnxruntimeWeb: string;
  /** A sentence for everything that could not be done as asked. */
  readonly notes: readonly string[];
}

/** A loaded model. It answers one call at a time; a second one meanwhile throws `busy`. */
export class Model {
  readonly info: LoadedFacts;
  readonly tokenizer: Tokenizer;
  readonly #forward: Forward;
  readonly #prefillChunk: number;
  readonly #release: () => Promise<void>;
  #state: "idle" | "busy" | "disposed" = "idle";

  constructor(
    info: LoadedFacts,
    tokenizer: Tokenizer,
    forward: Forward,
    prefillChunk: number,
    release: () => Promise<void>,
  ) {
    this.info = info;
    this.tokenizer = tokenizer;
    this.#forward = forward;
    this.#prefillChunk = prefillChunk;
    this.#release = release;
  }

  /**
   * Continues `prompt`, greedily unless a temperature is given. The token that
   * stops the text is not yielded.
   *
   * @throws TabwrightError `bad-input`, `context-full` when the prompt leaves no room,
   *   `aborted`, `busy`, `disposed`, `run-failed`, `device-lost`, and what the
   *   tokenizer throws.
   */
  async *generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GeneratedToken, void> {
    const start = performance.now();
    const sample = makeSampler(options);
    const stops = new Set(options.stopTokens ?? this.info.facts.eos_token_ids);
    const ids = this.#checked(this.#ids(prompt));
    const room = this.info.facts.context_length - ids.length;
    if (room < 1) {
      throw new TabwrightError(
        "context-full",
        `the prompt's ${ids.length} tokens fill the context of ${this.info.facts.context_length}`,
      );
    }
    const count = Math.min(options.maxNewTokens ?? room, room);
    const decoder = new IncrementalDecoder((tokens) => this.tokenizer.decode(tokens));

    this.#enter();
    try {
      let logits = await this.#prefill(ids, options.signal);
      for (let made = 1; made <= count; made++) {
        throwIfAborted(options.signal);
        const token = sample(logits.data);
        if (stops.has(token)) return;
        const last = made === count;
        const text = decoder.push(token) + (last ? decoder.flush() : "");
        yield { token, text, atMs: performance.now() - start };
        if (last) return;
        await breathe();
        throwIfAborted(options.signal);
        logits = await this.#forward.step([token], 1);
      }
    } finally {
      this.#leave();
    }
  }

  /**
   * The logits of every position of `tokens`, fed as they are (teacher forcing).
   *
   * @param options.chunk positions per block; by default as many as one prefill step takes.
   * @throws TabwrightError as {@link generate} does.
   */
  async *score(
    tokens: readonly number[],
    options: { readonly chunk?: number; readonly signal?: AbortSignal } = {},
  ): AsyncGenerator<ScoredBlock, void> {
    const ids = this.#checked(tokens);
    const chunk = options.chunk ?? this.#prefillChunk;
    this.#enter();
    try {
      for (let start = 0; start < ids.length; start += chunk) {
        throwIfAborted(options.signal);
        const { rows, vocabulary, data } = await this.#forward.step(ids.slice(start, start + chunk), 0);
        yield { start, rows, vocabulary, logits: data };
        await breathe();
      }
    } finally {
      this.#leave();
    }
  }

  /** Frees the session, the GPU device and its buffers. The model is of no use after it. */
  async dispose(): Promise<void> {
    if (this.#state === "disposed") return;
    if (this.#state === "busy") throw new TabwrightError("busy", "end the running call before disposing");
    this.#state = "disposed";
    this.#forward.reset();
    await this.#release();
  }

  async #prefill(ids: readonly number[], signal: AbortSignal | undefined): Promise<Logits> {
    throwIfAborted(signal);
    const tail = Math.floor((ids.length - 1) / this.#prefillChunk) * this.#prefillChunk;
    for (let start = 0; start < tail; start += this.#prefillChunk) {
      await this.#forward.step(ids.slice(start, start + this.#prefillChunk), 1);
      await breathe();
      throwIfAborted(signal);
    }
    return await this.#forward.step(ids.slice(tail), 1);
  }

  #ids(prompt: Prompt): readonly number[] {
    if (typeof prompt === "string") return this.tokenizer.encode(prompt);
    if (prompt.every((item) => typeof item === "number")) return prompt;
    return this.tokenizer.applyChatTemplate(prompt as readonly Message[]).ids;
  }

  #checked(ids: readonly number[]): readonly number[] {
    const { vocab_size } = this.info.facts;
    if (ids.length === 0) throw new TabwrightError("bad-input", "there are no tokens to feed");
    const wrong = ids.find((id) => !Number.isInteger(id) || id < 0 || id >= vocab_size);
    if (wrong !== undefined) {
      throw new TabwrightError("bad-input", `${wrong} is not a token of this model (0 to ${vocab_size - 1})`);
    }
    return ids;
  }

  #enter(): void {
    if (this.#state === "disposed") throw new TabwrightError("disposed", "the model was disposed");
    if (this.#state === "busy") throw new TabwrightError("busy", "the model is answering another call");
    this.#state = "busy";
  }

  #leave(): void {
    this.#forward.reset();
    this.#state = "idle";
  }
}
