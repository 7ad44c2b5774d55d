import type { Model } from "../runtime/index.ts";
import type { GenerateResult } from "./schema.ts";

/**
 * Greedy tokens after `prompt`, until one of `stops` is in their text, an end-of-text token
 * or one of `stopTokens` comes (neither is among the tokens), or there are `maxNewTokens`.
 */
export async function generateUntil(
  model: Pick<Model, "generate" | "detokenize" | "info">,
  prompt: readonly number[],
  maxNewTokens: number,
  stops: readonly string[],
  stopTokens: readonly number[],
): Promise<GenerateResult> {
  const tokens: number[] = [];
  const at_ms: number[] = [];
  let text = "";
  const ends = [...model.info.facts.eos_token_ids, ...stopTokens];
  for await (const made of model.generate(prompt, { maxNewTokens, stopTokens: ends })) {
    tokens.push(made.token);
    at_ms.push(made.atMs);
    text += made.text;
    if (stops.some((stop) => text.includes(stop))) break;
  }
  return { tokens, text: await model.detokenize(tokens), at_ms };
}
