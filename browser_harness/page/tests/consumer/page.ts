/** Compiled, never run: a page of somebody else, who has only what the bundle ships. */
import { type ChatCompletionChunk, type ChatRequest, type JsonSchema, load, type Model, openai, TabwrightError } from "tabwright-page";

const schema: JsonSchema = { type: "object", properties: { city: { type: "string", maxLength: 40 } } };
const model: Model = await load("./model/manifest.json", { cacheBudgetBytes: 1 << 28, onProgress: ({ phase }) => phase });
const answer = model.generate([{ role: "user", content: "hi" }], { schema, logprobs: 2 });
for await (const { text, logprob } of answer) console.log(text.length, logprob?.toFixed(2));
const { chat } = openai(model);
const chunks = await chat.completions.create({ messages: [], stream: true, response_format: { type: "json_object" } });
for await (const chunk of chunks) console.log((chunk satisfies ChatCompletionChunk).choices[0]?.finish_reason);
const whole = await chat.completions.create({ messages: [] });
const nulled = await chat.completions.create({ messages: [], stream: null });
console.log(nulled.choices[0]?.message.content);
const request: ChatRequest = { messages: [], stream: Math.random() < 0.5 };
const either = await chat.completions.create(request);
console.log("usage" in either ? either.usage.total_tokens : (await either.next()).done);
console.log(whole.usage.total_tokens, new TabwrightError("busy", "x").code === "busy");
// @ts-expect-error: there is no such option
model.generate("x", { temprature: 1 });
// @ts-expect-error: nor such a field
await chat.completions.create({ messages: [], tools: [] });
