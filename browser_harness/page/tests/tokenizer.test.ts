import { describe, expect, test } from "vitest";

import { Tokenizer } from "../runtime/tokenizer.ts";

const TOKENIZER = JSON.stringify({
  added_tokens: [
    { id: 0, content: "<s>", special: true, normalized: false },
    { id: 1, content: "</s>", special: true, normalized: false },
  ],
  normalizer: null,
  pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
  post_processor: {
    type: "TemplateProcessing",
    single: [{ SpecialToken: { id: "<s>", type_id: 0 } }, { Sequence: { id: "A", type_id: 0 } }],
    pair: [],
    special_tokens: { "<s>": { id: "<s>", ids: [0], tokens: ["<s>"] } },
  },
  decoder: { type: "ByteLevel" },
  model: {
    type: "BPE",
    vocab: { "<s>": 0, "</s>": 1, h: 2, i: 3, hi: 4, "Ġ": 5 },
    merges: [["h", "i"]],
    ignore_merges: false,
  },
});
const CONFIG = JSON.stringify({ bos_token: "<s>", eos_token: { content: "</s>" } });
const TEMPLATE = `
{%- if not tools is none %}{{ raise_exception('tools') }}{% endif %}
{%- for message in messages %}
    {%- if message.role == 'bad' %}{{ raise_exception('no such role') }}{% endif %}
    {{- bos_token + message.content + eos_token }}
{%- endfor %}
{%- if add_generation_prompt %}hi{% endif %}`;

describe("a tokenizer", () => {
  const tokenizer = new Tokenizer(TOKENIZER, CONFIG, TEMPLATE);

  test("adds to plain text what the post-processor adds", () => {
    expect(tokenizer.encode("hi hi")).toEqual([0, 4, 5, 4]);
    expect(tokenizer.encode("")).toEqual([0]);
  });

  test("tells the bytes of tokens, but of special ones and of those that are none", () => {
    expect([5, 4].map((id) => tokenizer.bytesOf(id))).toEqual([Uint8Array.of(0x20), Uint8Array.of(0x68, 0x69)]);
    expect([0, 99].map((id) => tokenizer.bytesOf(id))).toEqual([null, null]);
  });

  test("leaves special tokens out of text", () => {
    expect(tokenizer.decode([0, 4, 5, 4, 1])).toBe("hi hi");
    expect(tokenizer.decode([])).toBe("");
  });

  test("adds nothing to what the chat template wrote", () => {
    expect(tokenizer.applyChatTemplate([{ role: "user", content: "hi" }])).toEqual({
      rendered: "<s>hi</s>hi",
      ids: [0, 4, 1, 4],
    });
  });

  test("reports what the template refuses", () => {
    expect(() => tokenizer.applyChatTemplate([{ role: "bad", content: "" }])).toThrow(
      expect.objectContaining({ code: "template-failed", message: expect.stringContaining("no such role") }),
    );
  });
});

test("a model without a template answers plain text only", () => {
  const tokenizer = new Tokenizer(TOKENIZER, CONFIG, undefined);
  expect(() => tokenizer.applyChatTemplate([])).toThrow(expect.objectContaining({ code: "template-missing" }));
});

test.each([
  ["{", CONFIG],
  [TOKENIZER, "{"],
  ["{}", CONFIG],
])("a broken tokenizer file is refused", (json, config) => {
  expect(() => new Tokenizer(json, config, undefined)).toThrow(
    expect.objectContaining({ code: "tokenizer-invalid" }),
  );
});

describe("digits", () => {
  const split = (individual: boolean) => {
    const json = JSON.parse(TOKENIZER);
    json.pre_tokenizer = {
      type: "Sequence",
      pretokenizers: [{ type: "Digits", individual_digits: individual }, json.pre_tokenizer],
    };
    // Two Arabic-Indic digits, each two bytes, and a merge across them.
    Object.assign(json.model.vocab, { "Ù": 6, "¡": 7, "Ù¡": 8, "Ù¡Ù¡": 9 });
    json.model.merges.push(["Ù", "¡"], ["Ù¡", "Ù¡"]);
    return new Tokenizer(JSON.stringify(json), CONFIG, undefined);
  };

  test("of every script stand alone where the tokenizer says so", () => {
    expect(split(true).encode("\u0661\u0661hi")).toEqual([0, 8, 8, 4]);
  });

  test("of every script stay together where it does not", () => {
    expect(split(false).encode("\u0661\u0661hi")).toEqual([0, 9, 4]);
  });
});

test("ByteLevel cuts at Unicode's white space", () => {
  const json = JSON.parse(TOKENIZER) as { model: { vocab: Record<string, number>; merges: string[][] } };
  // U+FEFF is EF BB BF and U+0085 is C2 85: not white space, and white space.
  json.model.vocab = { "<s>": 0, "</s>": 1, "Ġ": 2, "ï": 3, "»": 4, "¿": 5, "Â": 6, "ħ": 7, "Ġï": 8, "ĠÂ": 9 };
  json.model.merges = [["Ġ", "ï"], ["Ġ", "Â"]];
  const tokenizer = new Tokenizer(JSON.stringify(json), CONFIG, undefined);
  expect(tokenizer.encode(" \uFEFF")).toEqual([0, 8, 4, 5]);
  expect(tokenizer.encode(" \u0085")).toEqual([0, 9, 7]);
});

test("white space is Unicode's: a byte-order mark is none, a next-line is", () => {
  const json = JSON.parse(TOKENIZER);
  Object.assign(json.model.vocab, { "ï": 6, "»": 7, "¿": 8, "Â": 9, "ħ": 10, "ï»¿": 11, "»¿": 12 });
  json.model.merges.push(["»", "¿"], ["ï", "»¿"], ["Ġ", "ï»¿"]);
  json.model.vocab["Ġï»¿"] = 13;
  const tokenizer = new Tokenizer(JSON.stringify(json), CONFIG, undefined);
  // " \ufeff" is one word, as " ?[^\\s\\p{L}\\p{N}]+" takes it.
  expect(tokenizer.encode("hi \ufeff")).toEqual([0, 4, 13]);
});
