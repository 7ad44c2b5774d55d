/** Runs a tabwright bundle in a browser tab. */
export { type ErrorCode, TabwrightError } from "./errors.ts";
export { load, type LoadOptions } from "./load.ts";
export type {
  GeneratedToken,
  GenerateOptions,
  LoadedFacts,
  Model,
  Prompt,
  ScoredBlock,
} from "./model.ts";
export type { Progress, ProgressPhase } from "./obtain.ts";
export type { SamplingOptions } from "./sampling.ts";
export { clearStore } from "./store.ts";
export type { Message, RenderedChat, Tokenizer } from "./tokenizer.ts";
