import { expect, test } from "vitest";

import { IncrementalDecoder } from "../runtime/text.ts";

/** A tokenizer whose tokens are the bytes of UTF-8. */
function decodeBytes(ids: readonly number[]): string {
  return new TextDecoder().decode(Uint8Array.from(ids));
}

test.each(["plain", "مرحبا", "a😀b👨‍👩‍👧c", "e\u0301"])("every character of %s comes whole", (text) => {
  const decoder = new IncrementalDecoder(decodeBytes);
  const pieces = [...new TextEncoder().encode(text)].map((byte) => decoder.push(byte));
  expect(pieces.join("") + decoder.flush()).toBe(text);
  expect(pieces.join("")).not.toContain("\uFFFD");
});

test("bytes that never become a character come out at the end", () => {
  const decoder = new IncrementalDecoder(decodeBytes);
  expect([0x61, 0xf0, 0x9f].map((byte) => decoder.push(byte))).toEqual(["a", "", ""]);
  expect(decoder.flush()).toBe("\uFFFD");
});

test("bytes that are wrong do not hold back what follows", () => {
  const decoder = new IncrementalDecoder(decodeBytes);
  expect([0xff, 0x61, 0x62].map((byte) => decoder.push(byte))).toEqual(["", "\uFFFDa", "b"]);
});

test("a space that a decoder drops at the start is kept between pieces", () => {
  const words = ["▁Hello", "▁world", "!"];
  const decode = (ids: readonly number[]) =>
    ids.map((id) => words[id]).join("").replaceAll("▁", " ").replace(/^ /, "");
  const decoder = new IncrementalDecoder(decode);
  expect([0, 1, 2].map((id) => decoder.push(id))).toEqual(["Hello", " world", "!"]);
});
