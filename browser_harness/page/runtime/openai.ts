import type { GenerateOptions, Model } from "./api.ts";
import { TabwrightError } from "./errors.ts";
import type { Message } from "./tokenizer.ts";

/** What is understood of a request to OpenAI's chat completions; anything else is refused by name. */
export interface ChatRequest {
  readonly messages: readonly Message[];
  /** Must be the loaded model's name when given. */
  readonly model?: string;
  readonly stream?: boolean;
  readonly stream_options?: { readonly include_usage?: boolean };
  readonly max_tokens?: number;
  readonly max_completion_tokens?: number;
  /** 1 when left out, as there; 0 is greedy. */
  readonly temperature?: number;
  readonly top_p?: number;
  readonly seed?: number;
  /** Not sent to anyone: ends the answer, as the client library's second argument does. */
  readonly signal?: AbortSignal;
}

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
}

interface Envelope<Kind extends string, Choice> {
  readonly id: string;
  readonly object: Kind;
  /** Seconds since 1970. */
  readonly created: number;
  readonly model: string;
  readonly choices: readonly Choice[];
}

export interface ChatCompletion
  extends Envelope<
    "chat.completion",
    { readonly index: 0; readonly message: Message; readonly finish_reason: "stop" | "length" }
  > {
  readonly usage: Usage;
}

export interface ChatCompletionChunk
  extends Envelope<
    "chat.completion.chunk",
    {
      readonly index: 0;
      readonly delta: Partial<Message>;
      readonly finish_reason: "stop" | "length" | null;
    }
  > {
  readonly usage?: Usage;
}

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
  "signal",
] satisfies (keyof ChatRequest)[]);

interface Completions {
  create(request: ChatRequest & { readonly stream: true }): Promise<AsyncGenerator<ChatCompletionChunk, void>>;
  create(request: ChatRequest & { readonly stream?: false }): Promise<ChatCompletion>;
}

/**
 * `model` in the shape of OpenAI's client: `openai(model).chat.completions.create(...)`.
 *
 * @throws TabwrightError from `create`: `bad-input` naming a field that is not understood,
 *   and what `Model.generate` throws.
 */
export function openai(model: Model): { readonly chat: { readonly completions: Completions } } {
  const create = async (request: ChatRequest) => {
    check(model, request);
    const prompt = (await model.render(request.messages)).ids;
    return request.stream ? chunks(model, request, prompt) : await whole(model, request, prompt);
  };
  return { chat: { completions: { create: create as Completions["create"] } } };
}

function check(model: Model, request: ChatRequest): void {
  const strange = Object.keys(request).find((field) => !KNOWN.has(field));
  if (strange !== undefined) throw new TabwrightError("bad-input", `'${strange}' is not understood`);
  const { name } = model.info.facts;
  if (request.model !== undefined && request.model !== name) {
    throw new TabwrightError("bad-input", `the model loaded here is '${name}', not '${request.model}'`);
  }
}

async function whole(model: Model, request: ChatRequest, prompt: number[]): Promise<ChatCompletion> {
  let content = "";
  let count = 0;
  const tokens = model.generate(prompt, optionsOf(request));
  for (;;) {
    const next = await tokens.next();
    if (next.done) {
      return {
        ...envelope(model, "chat.completion"),
        choices: [{ index: 0, message: { role: "assistant", content }, finish_reason: next.value }],
        usage: usageOf(prompt, count),
      };
    }
    content += next.value.text;
    count++;
  }
}

async function* chunks(
  model: Model,
  request: ChatRequest,
  prompt: number[],
): AsyncGenerator<ChatCompletionChunk, void> {
  const same = envelope(model, "chat.completion.chunk");
  const chunk = (
    delta: Partial<Message>,
    finish_reason: ChatCompletionChunk["choices"][0]["finish_reason"] = null,
  ): ChatCompletionChunk => ({ ...same, choices: [{ index: 0, delta, finish_reason }] });
  yield chunk({ role: "assistant", content: "" });
  let count = 0;
  const tokens = model.generate(prompt, optionsOf(request));
  try {
    for (;;) {
      const next = await tokens.next();
      if (next.done) {
        yield chunk({}, next.value);
        break;
      }
      count++;
      // A token may complete no character yet.
      if (next.value.text !== "") yield chunk({ content: next.value.text });
    }
    if (request.stream_options?.include_usage) yield { ...same, choices: [], usage: usageOf(prompt, count) };
  } finally {
    await tokens.return("length"); // Frees the model when the reader left early.
  }
}

function optionsOf(request: ChatRequest): GenerateOptions {
  const { temperature = 1, top_p, seed, signal } = request;
  const maxNewTokens = request.max_completion_tokens ?? request.max_tokens;
  return {
    temperature,
    signal,
    ...(maxNewTokens === undefined ? {} : { maxNewTokens }),
    ...(top_p === undefined ? {} : { topP: top_p }),
    ...(seed === undefined ? {} : { seed }),
  };
}

function envelope<Kind extends string>(model: Model, object: Kind) {
  return {
    id: `chatcmpl-${crypto.randomUUID()}`,
    object,
    created: Math.floor(Date.now() / 1000),
    model: model.info.facts.name,
  };
}

function usageOf(prompt: readonly number[], completion_tokens: number): Usage {
  return {
    prompt_tokens: prompt.length,
    completion_tokens,
    total_tokens: prompt.length + completion_tokens,
  };
}
