/** Runs a tabwright bundle in a browser tab. */
import { Host, type Port } from "./host.ts";
import { WORKER_NAME } from "./wire.ts";

export type {
  Choice,
  FinishReason,
  GeneratedToken,
  GenerateOptions,
  LoadedFacts,
  LogprobOptions,
  LoopKind,
  Model,
  Prompt,
  ScoredBlock,
  ScoreOptions,
  TokenLogprob,
} from "./api.ts";
export type { JsonSchema } from "./grammar.ts";
export { type ErrorCode, TabwrightError } from "./errors.ts";
export { load, type OpenOptions } from "./open.ts";
export type { Progress, ProgressPhase } from "./obtain.ts";
export {
  type ChatCompletion,
  type ChatCompletionChunk,
  type ChatLogprobs,
  type ChatTokenLogprob,
  type Completions,
  openai,
  type Usage,
} from "./openai.ts";
export type { ChatRequest, ResponseFormat } from "./openai_request.ts";
export type { Fallback, SelfCheckResult, Way } from "./schema.ts";
export type { SamplingOptions } from "./sampling.ts";
export { clearStore } from "./store.ts";
export type { Predicted, Refusal, TargetChoice } from "./target.ts";
export type { Message, RenderedChat } from "./tokenizer.ts";

// The worker that `load` starts runs this very module.
const here = globalThis as unknown as Port & { readonly name?: string };
if (!("document" in globalThis) && here.name === WORKER_NAME) new Host(here);
