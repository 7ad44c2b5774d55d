import { expect, test } from "vitest";

import type { GenerateOptions, Model } from "../runtime/api.ts";
import { openai } from "../runtime/openai.ts";
import type { ChatRequest } from "../runtime/openai_request.ts";

const MESSAGES = [{ role: "user", content: "hi" }];

/** Says "a", nothing (a character's first half) and "b", and remembers what it was asked. */
class SayingModel {
  readonly info = { facts: { name: "tiny" } };
  asked: GenerateOptions | undefined;
  left = false;
  /** What is known of tokens beside their text. */
  readonly bytes = new Map<number, Uint8Array>();

  async render() {
    return { rendered: "hi", ids: [1, 2, 3] };
  }

  async tokenBytes(ids: readonly number[]) {
    return ids.map((id) => this.bytes.get(id) ?? null);
  }

  async detokenize([id]: readonly number[]) {
    return id === 7 ? "é" : "\uFFFD";
  }

  async *generate(_prompt: unknown, options: GenerateOptions) {
    this.asked = options;
    try {
      const likely = options.logprobs === undefined ? {} : { logprob: -0.5, top: [{ token: 8, logprob: -1 }] };
      for (const text of ["a", "", "b"]) yield { token: 7, text, atMs: 0, ...likely };
      return "stop" as const;
    } finally {
      this.left = true;
    }
  }
}

function client(model = new SayingModel()) {
  return openai(model as unknown as Model).chat.completions;
}

test("a completion has the answer, why it ended and what it cost", async () => {
  const completion = await client().create({ messages: MESSAGES });
  expect(completion).toMatchObject({
    object: "chat.completion",
    model: "tiny",
    choices: [{ index: 0, message: { role: "assistant", content: "ab" }, finish_reason: "stop" }],
    usage: { prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 },
  });
});

test("a stream begins with the role and ends with the reason, then the usage when asked", async () => {
  const request = { messages: MESSAGES, stream: true as const, stream_options: { include_usage: true } };
  const seen = [];
  for await (const chunk of await client().create(request)) seen.push(chunk);
  expect(seen.map(({ choices }) => choices[0])).toEqual([
    { index: 0, delta: { role: "assistant", content: "" }, logprobs: null, finish_reason: null },
    { index: 0, delta: { content: "a" }, logprobs: null, finish_reason: null },
    { index: 0, delta: { content: "b" }, logprobs: null, finish_reason: null },
    { index: 0, delta: {}, logprobs: null, finish_reason: "stop" },
    undefined,
  ]);
  expect(seen.at(-1)?.usage).toEqual({ prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 });
  expect(seen.slice(0, -1).map(({ usage }) => usage)).toEqual([null, null, null, null]);
  expect(new Set(seen.map(({ id }) => id)).size).toBe(1);
});

test("options go by their names here; temperature is 1 unless given", async () => {
  const model = new SayingModel();
  await client(model).create({ messages: MESSAGES, max_tokens: 9, max_completion_tokens: 5, top_p: 0.5, seed: 3 });
  expect(model.asked).toMatchObject({ maxNewTokens: 5, temperature: 1, topP: 0.5, seed: 3 });
});

test("a reader who leaves frees the model", async () => {
  const model = new SayingModel();
  for await (const chunk of await client(model).create({ messages: MESSAGES, stream: true })) {
    if (chunk.choices[0]?.delta.content === "a") break;
  }
  expect(model.left).toBe(true);
});

test("logprobs come with each token, and with it the likeliest", async () => {
  const model = new SayingModel();
  const asked = { messages: MESSAGES, logprobs: true, top_logprobs: 1 };
  const { choices } = await client(model).create(asked);
  const token = {
    token: "é",
    bytes: [0xc3, 0xa9],
    logprob: -0.5,
    top_logprobs: [{ token: "\uFFFD", bytes: null, logprob: -1 }],
  };
  expect(choices[0]?.logprobs).toEqual({ content: [token, token, token] });
  expect(model.asked?.logprobs).toBe(1);
  const streamed = [];
  for await (const chunk of await client().create({ ...asked, stream: true })) streamed.push(chunk.choices[0]?.logprobs);
  // The second token has no text of its own yet, but its chances are told.
  expect(streamed).toEqual([null, { content: [token] }, { content: [token] }, { content: [token] }, null]);
});

test("a token's text is that of its bytes where they are known, with its space", async () => {
  const model = new SayingModel();
  model.bytes.set(7, Uint8Array.of(0x20, 0xc3, 0xa9));
  // The first byte of a character.
  model.bytes.set(8, Uint8Array.of(0xc3));
  const { choices } = await client(model).create({ messages: MESSAGES, logprobs: true, top_logprobs: 1 });
  expect(choices[0]?.logprobs?.content[1]).toEqual({
    token: " é",
    bytes: [0x20, 0xc3, 0xa9],
    logprob: -0.5,
    top_logprobs: [{ token: "\uFFFD", bytes: [0xc3], logprob: -1 }],
  });
});

test.each([
  [{ type: "text" }, undefined],
  [{ type: "json_object" }, { type: "object" }],
  [{ type: "json_schema", json_schema: { name: "x", strict: true, schema: { type: "null" } } }, { type: "null" }],
] as const)("the format %j asks for its schema", async (response_format, schema) => {
  const model = new SayingModel();
  await client(model).create({ messages: MESSAGES, response_format });
  expect(model.asked?.schema).toEqual(schema);
});

test("null is as good as left out, and stop goes on as it is", async () => {
  const model = new SayingModel();
  const nothing = { n: null, seed: null, temperature: null, response_format: null, top_p: null, model: null };
  const more = { stream: null, max_tokens: null };
  await client(model).create({ messages: MESSAGES, ...nothing, ...more, stop: ["x", "y"] });
  expect(model.asked).toEqual({ temperature: 1, signal: undefined, stop: ["x", "y"] });
});

test.each([
  [{ n: 2 }, /'n' can only be 1/],
  [{ tools: [] }, /'tools' is not understood/],
  [{ frequency_penalty: 0.5 }, /'frequency_penalty' is not understood/],
  [{ model: "other" }, /is 'tiny', not 'other'/],
  [{ top_logprobs: 2 }, /needs 'logprobs'/],
  [{ logprobs: true, top_logprobs: 21 }, /0 to 20/],
  [{ stop: ["a", "b", "c", "d", "e"] }, /5 texts/],
  [{ stream_options: { include_usage: true } }, /needs 'stream'/],
  [{ stream: true, stream_options: { include_obfuscation: true } }, /'stream_options.include_obfuscation'/],
  [{ response_format: { type: "xml" } }, /'xml'/],
  [{ response_format: { type: "json_schema" } }, /json_schema.schema' is missing/],
  [{ messages: "hi" }, /'messages' must be/],
  [{ max_tokens: 0 }, /'max_tokens' is 0/],
  [{ max_tokens: "9" }, /'max_tokens' is 9; whole numbers/],
  [{ max_completion_tokens: 1.5 }, /'max_completion_tokens' is 1.5/],
  [{ stop: [1] }, /'stop' must be text/],
  [{ stop: { text: "x" } }, /'stop' must be text/],
  [{ logprobs: 2 }, /'logprobs' must be true or false/],
  [{ stream: "yes" }, /'stream' must be true or false/],
  [{ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, /'messages\[0\].content'/],
])("refuses %o", async (extra, message) => {
  const request = { messages: MESSAGES, ...extra } as unknown as ChatRequest;
  await expect(client().create(request)).rejects.toMatchObject({ code: "bad-input", message: expect.stringMatching(message) });
});
