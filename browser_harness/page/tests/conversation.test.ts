import { expect, test } from "vitest";

import { Conversation, MAX_NEW_TOKENS, type Said } from "../chat/conversation.ts";
import { type FinishReason, type GeneratedToken, type GenerateOptions, type Prompt, TabwrightError } from "../runtime/index.ts";

/** Answers with `pieces`, then fails with `fault` if there is one; keeps what it was asked. */
class FakeModel {
  readonly asked: { prompt: Prompt; options: GenerateOptions }[] = [];

  readonly #pieces: readonly string[];
  readonly #fault: Error | undefined;

  constructor(pieces: readonly string[], fault?: Error) {
    this.#pieces = pieces;
    this.#fault = fault;
  }

  async *generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GeneratedToken, FinishReason> {
    this.asked.push({ prompt, options });
    for (const [at, text] of this.#pieces.entries()) yield { token: at, text, atMs: 100 + 10 * at };
    if (this.#fault) throw this.#fault;
    return "stop";
  }
}

const LOST = new TabwrightError("device-lost", "gone");
const STOPPED = new TabwrightError("aborted", "stopped on request");
const ANSWERED = [
  { role: "user", content: "hi" },
  { role: "assistant", content: "hello" },
];

async function ask(conversation: Conversation, model: FakeModel, question = "hi") {
  const heard: Said[] = [];
  const outcome = await conversation.ask(model, question, new AbortController().signal, (said) => heard.push(said));
  return { outcome, heard };
}

test("an answer becomes part of what the model reads next", async () => {
  const conversation = new Conversation();
  const model = new FakeModel(["hel", "lo"]);
  const { outcome, heard } = await ask(conversation, model);
  expect(outcome).toEqual({ kept: true });
  expect(heard.at(-1)).toEqual({ text: "hello", tokens: 2, sinceFirstMs: 10 });
  expect(conversation.turns).toEqual(ANSWERED);
  await ask(conversation, model, "and?");
  expect(model.asked[1]?.prompt).toEqual([...ANSWERED, { role: "user", content: "and?" }]);
});

test.each([
  ["before its first word", []],
  ["in the middle", ["hel"]],
])("a question whose answer fails %s is taken back", async (_, pieces) => {
  const conversation = new Conversation();
  const { outcome } = await ask(conversation, new FakeModel(pieces, LOST));
  expect(outcome).toEqual({ kept: false, error: LOST });
  expect(conversation.turns).toEqual([]);
});

test("an answer that was stopped is kept as far as it went", async () => {
  const conversation = new Conversation();
  const { outcome } = await ask(conversation, new FakeModel(["hello"], STOPPED));
  expect(outcome).toEqual({ kept: true });
  expect(conversation.turns).toEqual(ANSWERED);
});

test.each([
  ["stopped before its first word", STOPPED],
  ["empty", undefined],
])("an answer that is %s leaves no turn and is no error", async (_, fault) => {
  const conversation = new Conversation();
  const { outcome } = await ask(conversation, new FakeModel([], fault));
  expect(outcome).toEqual({ kept: false });
  expect(conversation.turns).toEqual([]);
});

test("an answer has an end", async () => {
  const model = new FakeModel(["hello"]);
  await ask(new Conversation(), model);
  expect(model.asked[0]?.options.maxNewTokens).toBe(MAX_NEW_TOKENS);
});
