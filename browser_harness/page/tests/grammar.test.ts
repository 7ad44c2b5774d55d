import type { CompiledGrammar } from "@mlc-ai/web-xgrammar";
import Ajv from "ajv/dist/2020.js";
import { afterEach, describe, expect, test, vi } from "vitest";

import { CompiledGrammars } from "../runtime/compiled_grammars.ts";
import { Constrainer, engineStarter } from "../runtime/constraint.ts";
import { grammarOf, type JsonSchema } from "../runtime/grammar.ts";
import { makeSampler, type SamplingOptions } from "../runtime/sampling.ts";
import { bytesIn, END, startEngine, VOCABULARY } from "./engine.ts";

const SIZE = VOCABULARY.tokens.length;
const MOST = 400;
const ajv = new Ajv({
  strict: false,
  formats: {
    uuid: /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i,
    "date-time": (text) => /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d/.test(text) && !Number.isNaN(Date.parse(text)),
    // Date rolls the 31st of a short month over.
    date: (text) => new Date(text).toISOString().startsWith(text),
  },
});
const constrainer = new Constrainer(startEngine, VOCABULARY, SIZE);

afterEach(() => void vi.restoreAllMocks());

const person = {
  type: "object",
  properties: {
    name: { type: "string", minLength: 1, maxLength: 12 },
    age: { type: "integer", minimum: 0, maximum: 130 },
    tags: { type: "array", items: { enum: ["a", "ب", "c\"\\"] }, maxItems: 3 },
    "a \"key\" \n": { type: ["null", "boolean"] },
  },
  required: ["name", "tags"],
};
const tree = {
  $ref: "#/$defs/node",
  $defs: {
    node: {
      type: "object",
      properties: { leaf: { type: "boolean" }, next: { anyOf: [{ $ref: "#/$defs/node" }, { type: "null" }] } },
      required: ["next"],
    },
  },
};

const SCHEMAS: Record<string, JsonSchema> = {
  "an object": person,
  "one that refers to itself": tree,
  "one without required properties": { properties: { a: { const: 1 }, b: { const: null }, c: { type: "boolean" } } },
  "a map": { type: "object", additionalProperties: { type: "integer", minimum: -12, maximum: 12 } },
  "a short string": { type: "string", maxLength: 3 },
  "a long enough string": { type: "string", minLength: 4, maxLength: 6 },
  "an integer": { type: "integer" },
  "a number": { type: "number" },
  "a probability": { type: "number", minimum: 0, maximum: 1 },
  "a number without its limits": { type: "number", exclusiveMinimum: -2, exclusiveMaximum: 1 },
  "a large number": { type: "number", minimum: 10_000_000_000 },
  "integers between fractions": { type: "integer", minimum: -2.5, exclusiveMaximum: 4.2 },
  "a tuple": { prefixItems: [{ type: "boolean" }, { const: "x" }], items: { type: "null" }, minItems: 1, maxItems: 4 },
  "a closed tuple": { type: "array", prefixItems: [{ type: "boolean" }, { type: "null" }], items: false, minItems: 2 },
  "a list that is not empty": { type: "array", items: { type: "boolean" }, minItems: 2, maxItems: 3 },
  "values of a type": { type: "string", enum: ["ok", 7, "é\u0001"] },
  "a day": { type: "string", format: "date" },
  "a moment": { type: "string", format: "date-time" },
  "an id": { type: "string", format: "uuid" },
  "an empty object": { type: "object", additionalProperties: false },
};

/** Draws from random logits; a text that ends and what it was, or undefined. */
async function draw(schema: JsonSchema, seed: number, sampling: SamplingOptions): Promise<string | undefined> {
  const constraint = await constrainer.constrain(schema, [END]);
  const sample = makeSampler({ ...sampling, seed });
  const bytes: number[] = [];
  let state = seed + 1;
  try {
    for (let made = 0; made < MOST; made++) {
      const logits = Float32Array.from({ length: SIZE }, () => (state = (state * 48271) % 0x7fffffff) / 0x7fffffff);
      const token = sample(logits, await constraint.allowed());
      constraint.accept(token);
      if (token === END) return new TextDecoder("utf-8", { fatal: true }).decode(Uint8Array.from(bytes));
      bytes.push(...bytesIn(token));
    }
    return undefined;
  } finally {
    constraint.dispose();
  }
}

describe.each(Object.entries(SCHEMAS))("%s", (_, schema) => {
  const fits = ajv.compile(schema);

  test.each([
    ["most likely tokens", {}],
    ["drawn tokens", { temperature: 1 }],
    ["drawn tokens of a nucleus", { temperature: 2, topP: 0.8, topK: 40, repetitionPenalty: 1.3 }],
  ])("holds for %s of a model that knows nothing", async (_, sampling) => {
    let ended = 0;
    for (let seed = 0; seed < 8; seed++) {
      const text = await draw(schema, seed, sampling);
      if (text === undefined) continue;
      ended++;
      const value: unknown = JSON.parse(text);
      expect(fits(value), `${text}: ${ajv.errorsText(fits.errors)}`).toBe(true);
    }
    expect(ended).toBeGreaterThan(0);
  });
});

test.each([
  [{ type: "integer", minimum: -37, maximum: 112 }, (value: number) => value >= -37 && value <= 112],
  [{ type: "integer", minimum: 8, exclusiveMaximum: 101 }, (value: number) => value >= 8 && value < 101],
  [{ type: "number", exclusiveMinimum: -1, maximum: 9 }, (value: number) => value > -1 && value <= 9],
])("the integers of %o are all of them and no others", async (schema, fits) => {
  const accepted = await acceptedBy(schema, Array.from({ length: 400 }, (_, index) => `${index - 200}`));
  expect(accepted).toEqual(Array.from({ length: 400 }, (_, index) => index - 200).filter(fits).map(String));
});

test("what a person would write is accepted, what does not fit is not", async () => {
  const texts = [
    '{"name": "ليلى", "tags": []}',
    '{\n  "name": "A",\n  "age": 130,\n  "tags": ["a", "ب"]\n}',
    '{"name":"\\u0041\\n","tags":["c\\"\\\\"],"a \\"key\\" \\n":null}',
    '{"tags": [], "name": "A"}',
    '{"name": "", "tags": []}',
    '{"name": "A", "age": 131, "tags": []}',
    '{"name": "A", "tags": ["d"]}',
    '{"name": "A", "tags": [], "x": 1}',
    '{"name": "\\ud800", "tags": []}',
    '{"name": "A", "tags": []',
  ];
  expect(await acceptedBy(person, texts)).toEqual(texts.slice(0, 3));
});

/** Which of `texts` the whole grammar accepts, byte by byte. */
async function acceptedBy(schema: JsonSchema, texts: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const text of texts) {
    const constraint = await constrainer.constrain(schema, [END]);
    const tokens = Array.from(new TextEncoder().encode(text), (byte) => byte + 1);
    let whole = true;
    for (const token of [...tokens, END]) {
      const bits = await constraint.allowed();
      whole = (((bits[token >> 5] as number) >> (token & 31)) & 1) === 1;
      if (!whole) break;
      constraint.accept(token);
    }
    if (whole) found.push(text);
    constraint.dispose();
  }
  return found;
}

test.each([
  [{ type: "string", pattern: "^a" }, /#: 'pattern' cannot/],
  [{ properties: { a: { multipleOf: 3, type: "integer" } } }, /#\/properties\/a: 'multipleOf'/],
  [{ type: "array", uniqueItems: true }, /'uniqueItems'/],
  [{ type: "array", contains: {} }, /'contains'/],
  [{ oneOf: [{ type: "null" }] }, /'oneOf'/],
  [{ not: {} }, /'not'/],
  [{ allOf: [{ type: "null" }, {}] }, /'allOf'/],
  [{ type: "object", minProperties: 1 }, /'minProperties'/],
  [{ type: "object", patternProperties: {} }, /'patternProperties'/],
  [{ properties: { a: {} }, additionalProperties: { type: "null" } }, /'additionalProperties' with a schema/],
  [{ properties: {}, required: ["b"] }, /"b" is not among/],
  [{ anyOf: [{ type: "null" }], type: "null" }, /'type' cannot be enforced here/],
  [{ $ref: "#/$defs/none" }, /there is no '#\/\$defs\/none'/],
  [{ $ref: "https://example.org/a" }, /within the schema/],
  [{ $ref: "#" }, /refers to itself/],
  [{ anyOf: [{ type: "null" }, { $ref: "#" }] }, /refers to itself/],
  [{ type: "strin" }, /no type "strin"/],
  [{ type: "string", format: "email" }, /"email" cannot be enforced; date, time/],
  [{ type: "string", maxLength: 1000 }, /length of 1000/],
  [{ type: "string", minLength: 3, maxLength: 2 }, /nothing has/],
  [{ type: "number", minimum: 0.5 }, /whole limits can/],
  [{ type: "integer", minimum: 5, maximum: 4 }, /no number/],
  [{ type: "integer", exclusiveMinimum: true }, /must be a number/],
  [{ type: "string", enum: [1] }, /no value of 'enum'/],
  [{ type: "array", prefixItems: [{}], items: false, minItems: 2 }, /no array is that long/],
  [{ enum: [] }, /not empty/],
  [false, /no value fits false/],
  [{ properties: { a: null } }, /a schema is an object/],
] as [JsonSchema, RegExp][])("%o is refused by name", (schema, message) => {
  expect(() => grammarOf(schema)).toThrow(expect.objectContaining({ code: "schema-unsupported", message: expect.stringMatching(message) }));
});

test("a model whose tokens are no bytes, or that never ends, is refused", async () => {
  const other = new Constrainer(startEngine, undefined, SIZE);
  await expect(other.constrain(true, [END])).rejects.toMatchObject({ code: "schema-unsupported" });
  await expect(constrainer.constrain(true, [])).rejects.toMatchObject({ code: "schema-unsupported" });
});

test("a vocabulary that lacks a needed character is told, not looped over", async () => {
  const poor = new Constrainer(startEngine, { kind: "byte_level", tokens: [undefined, '"', "a"] }, 3);
  const constraint = await poor.constrain({ type: "null" }, [END]);
  await expect(constraint.allowed()).rejects.toMatchObject({ code: "schema-unsupported" });
  const other = await poor.constrain({ type: "string" }, [END]);
  expect(() => other.accept(2)).toThrow(expect.objectContaining({ code: "run-failed" }));
});

test("an engine that did not start is tried again, and disposing frees it", async () => {
  let starts = 0;
  const start = async () => {
    if (++starts === 1) throw new Error("offline");
    return await startEngine();
  };
  const flaky = new Constrainer(start, VOCABULARY, SIZE);
  const told = { code: "run-failed", message: expect.stringContaining("offline") };
  await expect(flaky.constrain(true, [END])).rejects.toMatchObject(told);
  for (let text = 0; text < 2; text++) (await flaky.constrain({ type: "null" }, [END])).dispose();
  expect(starts).toBe(2);
  await flaky.dispose();
});

test("the engine's bytes are read while they are sure to be there", async () => {
  const stored = new Blob(["stored bytes"]);
  const read = vi.spyOn(stored, "arrayBuffer");
  const start = await engineStarter(stored);
  expect(read).toHaveBeenCalledTimes(1);
  const run: Blob[] = [];
  vi.spyOn(URL, "createObjectURL").mockImplementation((blob) => {
    run.push(blob as Blob);
    return `data:text/javascript,${encodeURIComponent("export const engine = 7;")}`;
  });
  vi.spyOn(URL, "revokeObjectURL").mockImplementation(() => undefined);
  expect(await start()).toBe(7);
  expect(read).toHaveBeenCalledTimes(1);
  expect(run[0]).not.toBe(stored);
  expect([run[0]?.type, await run[0]?.text()]).toEqual(["text/javascript", "stored bytes"]);
});

test("a bundle without an engine holds no answer to a schema, and runs all the same", async () => {
  const start = await engineStarter(undefined);
  await expect(start()).rejects.toMatchObject({ code: "schema-unsupported" });
});

test("eight grammars are kept, the last that were used, and none in use is freed", async () => {
  const compiled: string[] = [];
  const freed: string[] = [];
  const grammars = new CompiledGrammars(async (text) => {
    compiled.push(text);
    return { dispose: () => void freed.push(text) } as unknown as CompiledGrammar;
  });
  const use = async (text: string) => (await grammars.borrow(text)).giveBack();
  const held = await grammars.borrow("held");
  for (let number = 1; number <= 7; number++) await use(`${number}`);
  expect(freed).toEqual([]);
  await use("1");
  await use("8");
  await use("9");
  expect(freed).toEqual(["2", "3"]);
  held.giveBack();
  await use("10");
  expect(freed).toEqual(["2", "3", "held"]);
  expect(compiled.filter((text) => text === "1")).toHaveLength(1);
  await grammars.dispose();
  expect(freed.toSorted()).toEqual(compiled.toSorted());
});

test("a grammar that was refused is compiled again when it is asked for again", async () => {
  let times = 0;
  const grammars = new CompiledGrammars(async () => {
    if (++times === 1) throw new Error("refused");
    return { dispose: () => undefined } as unknown as CompiledGrammar;
  });
  await expect(grammars.borrow("x")).rejects.toThrow("refused");
  (await grammars.borrow("x")).giveBack();
  expect(times).toBe(2);
});

test("tokens with a byte fallback are read as the tokenizer writes them", async () => {
  const tokens = [undefined, '"', "\u2581a", "<0xD9>", "<0x83>", "ك", "\u2581", "b"];
  const other = new Constrainer(startEngine, { kind: "byte_fallback", tokens }, tokens.length);
  const allowed = async (fed: readonly number[]) => {
    const constraint = await other.constrain({ const: " aك" }, [END]);
    for (const token of fed) constraint.accept(token);
    const [bits] = await constraint.allowed();
    return tokens.map((_, token) => token).filter((token) => ((bits as number) >> token) & 1);
  };
  expect(await allowed([1])).toEqual([2, 6]);
  expect(await allowed([1, 2])).toEqual([3, 5]);
  expect(await allowed([1, 2, 3])).toEqual([4]);
  expect(await allowed([1, 2, 3, 4])).toEqual([1]);
  expect(await allowed([1, 2, 5, 1])).toEqual([END]);
});
