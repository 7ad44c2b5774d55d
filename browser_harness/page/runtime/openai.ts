import type { Choice, FinishReason, GeneratedToken, Model } from "./api.ts";
import { type ChatRequest, checkRequest, optionsOf, wantsLogprobs } from "./openai_request.ts";
import type { Message } from "./tokenizer.ts";

export interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
  readonly total_tokens: number;
}

/** A token's text, its bytes in UTF-8 (null where they are not known), how likely it was. */
export interface ChatTokenLogprob {
  readonly token: string;
  readonly bytes: readonly number[] | null;
  readonly logprob: number;
}

export interface ChatLogprobs {
  readonly content: readonly (ChatTokenLogprob & { readonly top_logprobs: readonly ChatTokenLogprob[] })[];
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
    {
      readonly index: 0;
      readonly message: Message;
      readonly logprobs: ChatLogprobs | null;
      readonly finish_reason: FinishReason;
    }
  > {
  readonly usage: Usage;
}

export interface ChatCompletionChunk
  extends Envelope<
    "chat.completion.chunk",
    {
      readonly index: 0;
      readonly delta: Partial<Message>;
      readonly logprobs: ChatLogprobs | null;
      readonly finish_reason: FinishReason | null;
    }
  > {
  /** Of the whole answer, in a last chunk without choices; null in those before it. Only when asked for. */
  readonly usage?: Usage | null;
}

export interface Completions {
  create(request: ChatRequest & { readonly stream: true }): Promise<AsyncGenerator<ChatCompletionChunk, void>>;
  create(request: ChatRequest & { readonly stream?: false | null }): Promise<ChatCompletion>;
  /** Where only the request itself tells. */
  create(request: ChatRequest): Promise<ChatCompletion | AsyncGenerator<ChatCompletionChunk, void>>;
}

/**
 * `model` in the shape of OpenAI's client: `openai(model).chat.completions.create(...)`.
 *
 * @throws TabwrightError from `create`: `bad-input` naming a field or value that is not
 *   understood, and what `Model.generate` throws.
 */
export function openai(model: Model): { readonly chat: { readonly completions: Completions } } {
  const create = async (request: ChatRequest) => {
    checkRequest(model, request);
    const prompt = (await model.render(request.messages)).ids;
    return request.stream ? chunks(model, request, prompt) : await whole(model, request, prompt);
  };
  return { chat: { completions: { create: create as Completions["create"] } } };
}

async function whole(model: Model, request: ChatRequest, prompt: number[]): Promise<ChatCompletion> {
  let content = "";
  const made: GeneratedToken[] = [];
  const tokens = model.generate(prompt, optionsOf(request));
  for (;;) {
    const next = await tokens.next();
    if (next.done) {
      const logprobs = wantsLogprobs(request) ? await logprobsOf(model, made) : null;
      return {
        ...envelope(model, "chat.completion"),
        choices: [{ index: 0, message: { role: "assistant", content }, logprobs, finish_reason: next.value }],
        usage: usageOf(prompt, made.length),
      };
    }
    content += next.value.text;
    made.push(next.value);
  }
}

async function* chunks(
  model: Model,
  request: ChatRequest,
  prompt: number[],
): AsyncGenerator<ChatCompletionChunk, void> {
  const counted = request.stream_options?.include_usage === true;
  const same = { ...envelope(model, "chat.completion.chunk"), ...(counted ? { usage: null } : {}) };
  const chunk = (
    delta: Partial<Message>,
    logprobs: ChatLogprobs | null = null,
    finish_reason: FinishReason | null = null,
  ): ChatCompletionChunk => ({ ...same, choices: [{ index: 0, delta, logprobs, finish_reason }] });
  yield chunk({ role: "assistant", content: "" });
  let count = 0;
  const tokens = model.generate(prompt, optionsOf(request));
  try {
    for (;;) {
      const next = await tokens.next();
      if (next.done) {
        yield chunk({}, null, next.value);
        break;
      }
      count++;
      const { text } = next.value;
      const logprobs = wantsLogprobs(request) ? await logprobsOf(model, [next.value]) : null;
      // A token may complete no character yet.
      if (text !== "" || logprobs) yield chunk({ content: text }, logprobs);
    }
    if (counted) yield { ...same, choices: [], usage: usageOf(prompt, count) };
  } finally {
    await tokens.return("length"); // Frees the model when the reader left early.
  }
}

async function logprobsOf(model: Model, made: readonly GeneratedToken[]): Promise<ChatLogprobs> {
  const ids = [...new Set(made.flatMap(({ token, top = [] }) => [token, ...top.map((choice) => choice.token)]))];
  const known = await model.tokenBytes(ids);
  const pairs = ids.map(async (id, index) => [id, await writtenAs(model, id, known[index] ?? null)] as const);
  const written = new Map(await Promise.all(pairs));
  const told = ({ token, logprob }: Choice): ChatTokenLogprob => ({ ...(written.get(token) as Written), logprob });
  const content = made.map(({ token, logprob = NaN, top = [] }) => ({
    ...told({ token, logprob }),
    top_logprobs: top.map(told),
  }));
  return { content };
}

type Written = Pick<ChatTokenLogprob, "token" | "bytes">;

/** A token by its bytes: by itself a decoder may take it for a text's beginning, and strip its space. */
async function writtenAs(model: Model, id: number, bytes: Uint8Array | null): Promise<Written> {
  if (bytes) return { token: new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes), bytes: [...bytes] };
  const token = await model.detokenize([id]);
  return { token, bytes: token.includes("\uFFFD") ? null : [...new TextEncoder().encode(token)] };
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
