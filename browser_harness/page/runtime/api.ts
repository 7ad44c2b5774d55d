import type { JsonSchema } from "./grammar.ts";
import type { SamplingOptions } from "./sampling.ts";
import type { Adapter, Fallback, LoadTimings, Model as ModelFacts, SelfCheckResult } from "./schema.ts";
import type { TargetChoice } from "./target.ts";
import type { Message, RenderedChat } from "./tokenizer.ts";

/** `resident`: the GPU feeds itself. `plain`: every token's logits come to the CPU. */
export type LoopKind = "resident" | "plain";

/** What may be asked of it. */
export interface LoopOptions {
  /** How tokens are made on a GPU. Default: staying on it, where that is possible. */
  readonly loop?: LoopKind | undefined;
  /** Tokens of a prompt's step at most. Default: what suits the adapter. */
  readonly prefillChunk?: number | undefined;
  /** About how many bytes the cache on the GPU grows by at a time, at most. Default: 64 MiB. */
  readonly cacheGrowthBytes?: number | undefined;
  /**
   * About how many bytes the cache may take, on the GPU or in the WASM heap; less than a step takes
   * is `bad-input`. The plain loop holds it twice while a step runs. Default: what the context and the
   * GPU allow.
   */
  readonly cacheBudgetBytes?: number | undefined;
}

/** Text, a conversation, or token ids as they are. */
export type Prompt = string | readonly Message[] | readonly number[];

export interface GenerateOptions extends SamplingOptions {
  /** Default: until a stop token or the end of the context. */
  readonly maxNewTokens?: number;
  /** Default: the model's own end tokens. An empty list never stops early. */
  readonly stopTokens?: readonly number[];
  /** Texts that end the answer; neither they nor what follows is given. Not beside a schema. */
  readonly stop?: string | readonly string[];
  /**
   * Every answer that a stop token ends is JSON that fits this; see docs/schemas.md for the
   * keywords. Each token is then waited for, also by the loop that stays on the GPU.
   */
  readonly schema?: JsonSchema;
  /** Tells how likely each token was, and so many of the most likely ones there; 0 for itself alone. */
  readonly logprobs?: number;
  readonly signal?: AbortSignal | undefined;
}

/** A token as it comes: its text (maybe empty) and when, in ms from the call. */
export interface GeneratedToken {
  readonly token: number;
  readonly text: string;
  readonly atMs: number;
  /** Where `logprobs` was asked for: by the model's own logits, before sampling and schema. */
  readonly logprob?: number;
  readonly top?: readonly Choice[];
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
  /** How tokens are made: on the GPU alone, or one by one through the CPU. */
  readonly loop: LoopKind;
  readonly threads: number;
  /** True when the manifest came from the store because the network is off. */
  readonly offline: boolean;
  readonly onnxruntimeWeb: string;
  /** A sentence for everything that could not be done as asked. */
  readonly notes: readonly string[];
  /** How the target was chosen, when the runtime chose it: what was predicted, what was refused. */
  readonly choice: TargetChoice | undefined;
  /** Ways that failed before the one that was taken, in order. */
  readonly fallbacks: readonly Fallback[];
  /** Whether this device came to the logits that the bundle stores. */
  readonly selfCheck: SelfCheckResult;
}

/** Why an answer ended: a stop token, or the count or context that was allowed. */
export type FinishReason = "stop" | "length";

/** One of the vocabulary's choices at a position; `logprob` is a natural logarithm. */
export interface Choice {
  readonly token: number;
  readonly logprob: number;
}

/** The token at `position` as the model saw it coming, and what it thought most likely there. */
export interface TokenLogprob extends Choice {
  readonly position: number;
  readonly top: readonly Choice[];
}

export interface ScoreOptions {
  /** Positions per block; by default as many as one prefill step takes. */
  readonly chunk?: number;
  readonly signal?: AbortSignal | undefined;
}

export interface LogprobOptions {
  /** How many of the most likely tokens to tell at each position; 0 by default. */
  readonly top?: number;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A loaded model, in this thread or in a worker. It answers one call at a time; a second
 * one meanwhile throws `busy`. All methods throw `disposed` after {@link dispose}.
 */
export interface Model {
  readonly info: LoadedFacts;

  /**
   * Continues `prompt`, greedily unless a temperature is given, and returns why it ended.
   * Neither the token that stops the text nor anything of a text in `stop` is yielded.
   *
   * @throws TabwrightError `bad-input`, `context-full` when the prompt leaves no room,
   *   `aborted`, `busy`, `schema-unsupported`, `run-failed`, `device-lost`, `worker-failed`, and what
   *   {@link render} throws.
   */
  generate(prompt: Prompt, options?: GenerateOptions): AsyncGenerator<GeneratedToken, FinishReason>;

  /**
   * The logits of every position of `tokens`, fed as they are (teacher forcing). No block is
   * computed before it is asked for, also in a worker.
   *
   * @throws TabwrightError as {@link generate} does; `context-full` when the tokens exceed the context.
   */
  score(tokens: readonly number[], options?: ScoreOptions): AsyncGenerator<ScoredBlock, void>;

  /**
   * How likely each of `tokens` was after those before it; the first has nothing before it.
   *
   * @throws TabwrightError as {@link generate} does.
   */
  logprobs(tokens: readonly number[], options?: LogprobOptions): AsyncGenerator<TokenLogprob, void>;

  /** Ids of `text` with the special tokens that the tokenizer adds by itself. */
  tokenize(text: string): Promise<number[]>;

  /** Text of `ids` without special tokens. */
  detokenize(ids: readonly number[]): Promise<string>;

  /**
   * The bytes that each of `ids` stands for, which may be part of a character. A text's beginning
   * may lack some, where the decoder strips a space. Null for special tokens, and for all where the
   * tokenizer does not tell.
   */
  tokenBytes(ids: readonly number[]): Promise<(Uint8Array | null)[]>;

  /**
   * A conversation as the model reads it, ready for the assistant's answer.
   *
   * @throws TabwrightError `template-missing`, or `template-failed` when the template
   *   refuses these messages.
   */
  render(messages: readonly Message[]): Promise<RenderedChat>;

  /** Frees the session, the GPU device and its buffers. The model is of no use after it. */
  dispose(): Promise<void>;
}
