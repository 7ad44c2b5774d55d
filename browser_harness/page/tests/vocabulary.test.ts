import { expect, test } from "vitest";

import { bytesOf, staysUtf8, vocabularyOf } from "../runtime/vocabulary.ts";
import { written } from "./engine.ts";

test("every byte has its character in GPT-2's table, and back", () => {
  const all = Uint8Array.from({ length: 256 }, (_, byte) => byte);
  expect(bytesOf(written(all), "byte_level")).toEqual(all);
  // As GPT-2's files have them: a blank, a line's end, U+0643 in UTF-8.
  expect([...bytesOf("ĠĊÙĥ", "byte_level")]).toEqual([0x20, 0x0a, 0xd9, 0x83]);
});

test("tokens of a byte fallback are text, or one byte", () => {
  expect([...bytesOf("<0xE2>", "byte_fallback")]).toEqual([0xe2]);
  expect(new TextDecoder().decode(bytesOf("\u2581ك<0x", "byte_fallback"))).toBe(" ك<0x");
});

test.each([
  [[0x61, 0xd9], true],
  [[0xd9, 0x84, 0xd8], true],
  [[0x84, 0xe2, 0x82], true],
  [[0xf0, 0x9f], true],
  [[0xe0, 0xa4], true],
  [[0x80, 0x80], true],
  [[0xc0], false],
  [[0xc1, 0xbf], false],
  [[0xe0, 0x80], false],
  [[0xed, 0xa0, 0x80], false],
  [[0xf0, 0x8f, 0xbf, 0xbf], false],
  [[0xf4, 0x90], false],
  [[0xf5], false],
  [[0xd9, 0x61], false],
  [[0x61, 0xe0], false],
  [[0xed], false],
] as [number[], boolean][])("%j keeps a text UTF-8: %s", (bytes, expected) => {
  expect(staysUtf8(Uint8Array.from(bytes))).toBe(expected);
});

test("what is let through never makes a text that a strict decoder refuses", () => {
  // All pairs of pieces of up to two bytes around the borders, filled up with any continuation bytes.
  const edges = [0x61, 0x80, 0x8f, 0x90, 0x9f, 0xa0, 0xbf, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee, 0xef, 0xf0, 0xf1, 0xf3, 0xf4];
  const pieces = edges.flatMap((first) => [[first], ...edges.map((second) => [first, second])]);
  const open = { 0xc: 2, 0xd: 2, 0xe: 3, 0xf: 4 } as Record<number, number>;
  for (const piece of pieces.filter((bytes) => (bytes[0] as number) >> 6 !== 0b10 && staysUtf8(Uint8Array.from(bytes)))) {
    const lead = piece.findLastIndex((byte) => byte >> 6 !== 0b10);
    const missing = (open[(piece[lead] as number) >> 4] ?? 1) - (piece.length - lead);
    if (missing < 0) continue;
    for (const filler of [0x80, 0xbf]) {
      const whole = Uint8Array.from([...piece, ...Array<number>(missing).fill(filler)]);
      expect(() => new TextDecoder("utf-8", { fatal: true }).decode(whole), `${whole}`).not.toThrow();
    }
  }
});

test("a tokenizer's file tells its kind by its decoder, and added tokens are no text", () => {
  const model = { vocab: { a: 0, b: 2, "<s>": 1 } };
  const added_tokens = [{ id: 1 }, { id: 4 }];
  const nested = { type: "Sequence", decoders: [{ type: "Replace" }, { type: "ByteFallback" }, { type: "Fuse" }] };
  expect(vocabularyOf({ model, added_tokens, decoder: { type: "ByteLevel" } })).toEqual({
    kind: "byte_level",
    tokens: ["a", undefined, "b", undefined, undefined],
  });
  expect(vocabularyOf({ model: { vocab: [["x", 0], ["y", -1]] }, decoder: nested })).toEqual({
    kind: "byte_fallback",
    tokens: ["x", "y"],
  });
  expect(vocabularyOf({ model, decoder: { type: "WordPiece" } })).toBeUndefined();
  expect(vocabularyOf({ model, decoder: null })).toBeUndefined();
});
