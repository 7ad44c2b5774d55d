import type {
  FinishReason,
  GeneratedToken,
  GenerateOptions,
  LoadedFacts,
  LogprobOptions,
  Model,
  Prompt,
  ScoredBlock,
  ScoreOptions,
  TokenLogprob,
} from "./api.ts";
import { breathe } from "./breathe.ts";
import type { Constrainer, HeldConstraint } from "./constraint.ts";
import { checkCount } from "./counts.ts";
import { TabwrightError, throwIfAborted } from "./errors.ts";
import { logprobIn, logprobsOf } from "./logprobs.ts";
import type { Loop } from "./loop.ts";
import { Stops } from "./stops.ts";
import { IncrementalDecoder } from "./text.ts";
import type { Message, RenderedChat, Tokenizer } from "./tokenizer.ts";

/** The model in the thread that calls it. */
export class LocalModel implements Model {
  readonly info: LoadedFacts;
  readonly #tokenizer: Tokenizer;
  readonly #loop: Loop;
  readonly #constrainer: Constrainer;
  readonly #release: () => Promise<void>;
  #state: "idle" | "busy" | "disposed" = "idle";

  constructor(
    info: LoadedFacts,
    tokenizer: Tokenizer,
    loop: Loop,
    constrainer: Constrainer,
    release: () => Promise<void>,
  ) {
    this.info = info;
    this.#tokenizer = tokenizer;
    this.#loop = loop;
    this.#constrainer = constrainer;
    this.#release = release;
  }

  async *generate(
    prompt: Prompt,
    options: GenerateOptions = {},
  ): AsyncGenerator<GeneratedToken, FinishReason> {
    const start = performance.now();
    const { schema, signal, logprobs } = options;
    const stopTokens = options.stopTokens ?? this.info.facts.eos_token_ids;
    const stops = new Set(stopTokens);
    const held = new Stops<GeneratedToken>([options.stop ?? []].flat());
    if (schema !== undefined && options.stop !== undefined) {
      throw new TabwrightError("bad-input", "'stop' would cut what 'schema' makes whole: give one of them");
    }
    checkCount("logprobs", logprobs, 0);
    checkCount("maxNewTokens", options.maxNewTokens, 0);
    const ids = this.#checked(this.#ids(prompt));
    const context = this.#context();
    const room = context - ids.length;
    if (room < 1) {
      throw new TabwrightError("context-full", `the prompt's ${ids.length} tokens fill the context of ${context}`);
    }
    const count = Math.min(options.maxNewTokens ?? room, room);
    const decoder = new IncrementalDecoder((tokens) => this.#tokenizer.decode(tokens));

    this.#enter();
    let constraint: HeldConstraint | undefined;
    try {
      if (schema !== undefined) constraint = await this.#constrainer.constrain(schema, stopTokens);
      let row: Float32Array | undefined;
      const onLogits = logprobs === undefined ? undefined : (given: Float32Array) => void (row = given);
      let made = 0;
      for await (const token of this.#loop.tokens(ids, { sampling: options, count, signal, constraint, onLogits })) {
        if (stops.has(token)) {
          yield* untilAborted(held.flush(), signal);
          return "stop";
        }
        const last = ++made === count;
        const text = decoder.push(token) + (last ? decoder.flush() : "");
        const likely = row === undefined ? {} : logprobIn(row, token, logprobs ?? 0);
        const { shown, stopped } = held.push({ token, text, atMs: performance.now() - start, ...likely });
        yield* untilAborted(shown, signal);
        if (stopped) return "stop";
      }
      yield* untilAborted(held.flush(), signal);
      return "length";
    } finally {
      constraint?.dispose();
      this.#leave();
    }
  }

  async *score(tokens: readonly number[], options: ScoreOptions = {}): AsyncGenerator<ScoredBlock, void> {
    checkCount("chunk", options.chunk, 1);
    const ids = this.#checked(tokens);
    const context = this.#context();
    if (ids.length > context) {
      throw new TabwrightError("context-full", `there are ${ids.length} tokens to score; the context is ${context}`);
    }
    const chunk = options.chunk ?? this.#loop.chunk;
    this.#enter();
    try {
      for (let start = 0; start < ids.length; start += chunk) {
        throwIfAborted(options.signal);
        const { rows, vocabulary, data } = await this.#loop.score(ids.slice(start, start + chunk));
        yield { start, rows, vocabulary, logits: data };
        await breathe();
      }
    } finally {
      this.#leave();
    }
  }

  logprobs(tokens: readonly number[], options: LogprobOptions = {}): AsyncGenerator<TokenLogprob, void> {
    const { top, ...scoring } = options;
    return logprobsOf(this.score(tokens, scoring), tokens, top ?? 0);
  }

  async tokenize(text: string): Promise<number[]> {
    return this.#open().encode(text);
  }

  async detokenize(ids: readonly number[]): Promise<string> {
    return this.#open().decode(ids);
  }

  async tokenBytes(ids: readonly number[]): Promise<(Uint8Array | null)[]> {
    const tokenizer = this.#open();
    return ids.map((id) => tokenizer.bytesOf(id));
  }

  async render(messages: readonly Message[]): Promise<RenderedChat> {
    return this.#open().applyChatTemplate(messages);
  }

  async dispose(): Promise<void> {
    if (this.#state === "disposed") return;
    if (this.#state === "busy") throw new TabwrightError("busy", "end the running call before disposing");
    this.#state = "disposed";
    this.#loop.dispose();
    await this.#constrainer.dispose();
    await this.#release();
  }

  #ids(prompt: Prompt): readonly number[] {
    if (typeof prompt === "string") return this.#tokenizer.encode(prompt);
    if (prompt.every((item) => typeof item === "number")) return prompt;
    return this.#tokenizer.applyChatTemplate(prompt as readonly Message[]).ids;
  }

  /** Positions that a text may have here. */
  #context(): number {
    return Math.min(this.info.facts.context_length, this.#loop.most);
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

  #open(): Tokenizer {
    if (this.#state === "disposed") throw new TabwrightError("disposed", "the model was disposed");
    return this.#tokenizer;
  }

  #enter(): void {
    this.#open();
    if (this.#state === "busy") throw new TabwrightError("busy", "the model is answering another call");
    this.#state = "busy";
  }

  #leave(): void {
    this.#loop.reset();
    this.#state = "idle";
  }
}

/** The items, one after the other, until somebody has had enough. */
function* untilAborted<T>(items: readonly T[], signal: AbortSignal | undefined): Generator<T, void> {
  for (const item of items) {
    throwIfAborted(signal);
    yield item;
  }
}
