import { Template } from "@huggingface/jinja";
import { Tokenizer as JsonTokenizer } from "@huggingface/tokenizers";

import { reason, TabwrightError } from "./errors.ts";
import { withUnicodeClasses } from "./pretokenizer.ts";
import { bytesOf, type Vocabulary, vocabularyOf } from "./vocabulary.ts";

export interface Message {
  readonly role: string;
  readonly content: string;
}

/** A conversation as the model reads it. */
export interface RenderedChat {
  readonly rendered: string;
  readonly ids: number[];
}

/** What transformers passes to a chat template beside the messages. */
const SPECIAL_TOKENS = [
  "bos_token",
  "eos_token",
  "unk_token",
  "sep_token",
  "pad_token",
  "cls_token",
  "mask_token",
];

/** Text to ids and back, as transformers does it. */
export class Tokenizer {
  /** What bytes the tokens stand for, where that is known. */
  readonly vocabulary: Vocabulary | undefined;
  readonly #tokenizer: JsonTokenizer;
  readonly #template: Template | undefined;
  readonly #specials: Record<string, string>;

  /**
   * @param tokenizer tokenizer.json's text.
   * @param config tokenizer_config.json's text.
   * @param template chat_template.jinja's text, if the bundle has one.
   * @throws TabwrightError `tokenizer-invalid`.
   */
  constructor(tokenizer: string, config: string, template: string | undefined) {
    try {
      const settings: Record<string, unknown> = JSON.parse(config);
      const parts = JSON.parse(tokenizer);
      this.#tokenizer = new JsonTokenizer(
        { ...parts, pre_tokenizer: withUnicodeClasses(parts.pre_tokenizer) },
        settings,
      );
      this.vocabulary = vocabularyOf(parts);
      this.#specials = specialTokens(settings);
      this.#template = template === undefined ? undefined : new Template(template);
    } catch (error) {
      throw new TabwrightError("tokenizer-invalid", `the tokenizer or chat template: ${reason(error)}`, error);
    }
  }

  /** Ids of `text` with the special tokens that the tokenizer adds by itself. */
  encode(text: string): number[] {
    return this.#tokenizer.encode(text).ids;
  }

  /** Text of `ids` without special tokens. */
  decode(ids: readonly number[]): string {
    if (ids.length === 0) return "";
    return this.#tokenizer.decode([...ids], {
      skip_special_tokens: true,
      clean_up_tokenization_spaces: false,
    });
  }

  /** The bytes that a token stands for, wherever it stands; null where that is not known, as of special tokens. */
  bytesOf(id: number): Uint8Array | null {
    const { vocabulary } = this;
    const token = vocabulary?.tokens[id];
    return vocabulary === undefined || token === undefined ? null : bytesOf(token, vocabulary.kind);
  }

  /**
   * Renders a conversation, ready for the assistant's answer, and its ids.
   *
   * @throws TabwrightError `template-missing`, or `template-failed` when the template
   *   refuses these messages.
   */
  applyChatTemplate(messages: readonly Message[]): RenderedChat {
    if (!this.#template) {
      throw new TabwrightError("template-missing", "this model has no chat template: give it plain text");
    }
    let rendered: string;
    try {
      rendered = this.#template.render({
        ...this.#specials,
        messages,
        tools: null,
        documents: null,
        add_generation_prompt: true,
      });
    } catch (error) {
      throw new TabwrightError("template-failed", `the chat template: ${reason(error)}`, error);
    }
    // The template has written the special tokens itself.
    return { rendered, ids: this.#tokenizer.encode(rendered, { add_special_tokens: false }).ids };
  }
}

function specialTokens(settings: Record<string, unknown>): Record<string, string> {
  const found: Record<string, string> = {};
  for (const name of SPECIAL_TOKENS) {
    const value = settings[name];
    if (typeof value === "string") found[name] = value;
    else if (value && typeof value === "object" && "content" in value) found[name] = String(value.content);
  }
  return found;
}
