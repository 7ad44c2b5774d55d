import type { GenerateOptions, Model } from "./api.ts";
import { checkCount } from "./counts.ts";
import { TabwrightError } from "./errors.ts";
import type { JsonSchema } from "./grammar.ts";
import { checkTexts } from "./stops.ts";
import type { Message } from "./tokenizer.ts";

/** How an answer is to be written. */
export type ResponseFormat =
  | { readonly type: "text" }
  | { readonly type: "json_object" }
  | {
      readonly type: "json_schema";
      readonly json_schema: {
        readonly name?: string;
        readonly description?: string;
        readonly schema: JsonSchema;
        /** Answers always fit the schema, asked for or not. */
        readonly strict?: boolean | null;
      };
    };

/**
 * What is understood of a request to OpenAI's chat completions; anything else is refused by
 * name. As there, null is as good as left out.
 */
export interface ChatRequest {
  readonly messages: readonly Message[];
  /** Must be the loaded model's name when given. */
  readonly model?: string | null;
  readonly stream?: boolean | null;
  readonly stream_options?: { readonly include_usage?: boolean } | null;
  readonly max_tokens?: number | null;
  readonly max_completion_tokens?: number | null;
  /** 1 when left out, as there; 0 is greedy. */
  readonly temperature?: number | null;
  readonly top_p?: number | null;
  readonly seed?: number | null;
  /** At most four, as there. */
  readonly stop?: string | readonly string[] | null;
  readonly logprobs?: boolean | null;
  /** 0 to 20, with `logprobs` only, as there. */
  readonly top_logprobs?: number | null;
  readonly response_format?: ResponseFormat | null;
  /** 1 is all that there is: more answers are more requests. */
  readonly n?: 1 | null;
  /** Not sent to anyone: ends the answer, as the client library's second argument does. */
  readonly signal?: AbortSignal;
}

const MOST_STOPS = 4;
const MOST_TOP_LOGPROBS = 20;

const KNOWN: ReadonlySet<string> = new Set([
  "messages",
  "model",
  "stream",
  "stream_options",
  "max_tokens",
  "max_completion_tokens",
  "temperature",
  "top_p",
  "seed",
  "stop",
  "logprobs",
  "top_logprobs",
  "response_format",
  "n",
  "signal",
] satisfies (keyof ChatRequest)[]);

/** @throws TabwrightError `bad-input` naming the field that is not understood. */
export function checkRequest(model: Model, request: ChatRequest): void {
  const refuse = (why: string): never => {
    throw new TabwrightError("bad-input", why);
  };
  const given = Object.entries(request).filter(([, value]) => value !== null && value !== undefined);
  const strange = given.find(([field]) => !KNOWN.has(field));
  if (strange) refuse(`'${strange[0]}' is not understood`);
  const { name } = model.info.facts;
  if (!Array.isArray(request.messages)) refuse("'messages' must be a list");
  request.messages.forEach((message, index) => {
    if (typeof message?.content !== "string") refuse(`'messages[${index}].content' must be text`);
  });
  if ((request.model ?? name) !== name) refuse(`the model loaded here is '${name}', not '${request.model}'`);
  if ((request.n ?? 1) !== 1) refuse(`'n' can only be 1: ask ${request.n} times, with other seeds`);
  for (const field of ["max_tokens", "max_completion_tokens"] as const) checkCount(field, request[field] ?? undefined, 1);
  for (const field of ["stream", "logprobs"] as const) {
    if (typeof (request[field] ?? false) !== "boolean") refuse(`'${field}' must be true or false`);
  }
  const stops = [request.stop ?? []].flat();
  checkTexts(stops);
  if (stops.length > MOST_STOPS) refuse(`'stop' has ${stops.length} texts; ${MOST_STOPS} are allowed`);
  const top = request.top_logprobs ?? 0;
  if (!Number.isInteger(top) || top < 0 || top > MOST_TOP_LOGPROBS) {
    refuse(`'top_logprobs' is ${top}; 0 to ${MOST_TOP_LOGPROBS} are possible`);
  }
  if (request.top_logprobs != null && !request.logprobs) refuse("'top_logprobs' needs 'logprobs'");
  if (request.stream_options && !request.stream) refuse("'stream_options' needs 'stream'");
  const strangeOption = Object.keys(request.stream_options ?? {}).find((field) => field !== "include_usage");
  if (strangeOption !== undefined) refuse(`'stream_options.${strangeOption}' is not understood`);
  checkFormat(request.response_format ?? { type: "text" }, refuse);
}

function checkFormat(format: ResponseFormat, refuse: (why: string) => never): void {
  if (!["text", "json_object", "json_schema"].includes(format.type)) {
    refuse(`'response_format.type' is '${format.type}'; text, json_object and json_schema are understood`);
  }
  if (format.type === "json_schema" && format.json_schema?.schema === undefined) {
    refuse("'response_format.json_schema.schema' is missing");
  }
}

export function wantsLogprobs(request: ChatRequest): boolean {
  return request.logprobs === true;
}

/** What `Model.generate` is asked for. */
export function optionsOf(request: ChatRequest): GenerateOptions {
  const maxNewTokens = request.max_completion_tokens ?? request.max_tokens;
  const { top_p, seed, stop, signal } = request;
  const schema = schemaOf(request.response_format ?? { type: "text" });
  return {
    temperature: request.temperature ?? 1,
    signal,
    ...(maxNewTokens == null ? {} : { maxNewTokens }),
    ...(top_p == null ? {} : { topP: top_p }),
    ...(seed == null ? {} : { seed }),
    ...(stop == null ? {} : { stop }),
    ...(schema === undefined ? {} : { schema }),
    ...(wantsLogprobs(request) ? { logprobs: request.top_logprobs ?? 0 } : {}),
  };
}

function schemaOf(format: ResponseFormat): JsonSchema | undefined {
  if (format.type === "json_schema") return format.json_schema.schema;
  return format.type === "json_object" ? { type: "object" } : undefined;
}
