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

  async render() {
    return { rendered: "hi", ids: [1, 2, 3] };
  }

  async *generate(_prompt: unknown, options: GenerateOptions) {
    this.asked = options;
    try {
      for (const text of ["a", "", "b"]) yield { token: 7, text, atMs: 0 };
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
    { index: 0, delta: { role: "assistant", content: "" }, finish_reason: null },
    { index: 0, delta: { content: "a" }, finish_reason: null },
    { index: 0, delta: { content: "b" }, finish_reason: null },
    { index: 0, delta: {}, finish_reason: "stop" },
    undefined,
  ]);
  expect(seen.at(-1)?.usage).toEqual({ prompt_tokens: 3, completion_tokens: 3, total_tokens: 6 });
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

test.each([
  [{ n: 2 }, /'n' is not understood/],
  [{ model: "other" }, /is 'tiny', not 'other'/],
])("refuses %o", async (extra, message) => {
  const request = { messages: MESSAGES, ...extra } as ChatRequest & { stream?: false };
  await expect(client().create(request)).rejects.toMatchObject({ code: "bad-input", message: expect.stringMatching(message) });
});
