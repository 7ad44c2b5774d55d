import { expect, test } from "vitest";

import { Stops } from "../runtime/stops.ts";

/** What a reader sees after each piece, and whether the answer was ended. */
function show(stops: readonly string[], pieces: readonly string[]): [string, boolean] {
  const held = new Stops<{ text: string; at: number }>(stops);
  let seen = "";
  for (const [at, text] of pieces.entries()) {
    const { shown, stopped } = held.push({ text, at });
    for (const item of shown) seen += item.text;
    // Nothing that is shown may ever be taken back.
    for (const stop of stops) expect(seen).not.toContain(stop);
    if (stopped) return [seen, true];
  }
  for (const item of held.flush()) seen += item.text;
  return [seen, false];
}

test.each([
  [["END"], ["a EN", "D b"], ["a ", true]],
  [["END"], ["a", "EN", "d"], ["aENd", false]],
  [["END"], ["x E", "", "N", "D"], ["x ", true]],
  [["\nUser:"], ["Hello", "!\n", "User", ": no"], ["Hello!", true]],
  [["aab"], ["a", "a", "a", "b"], ["a", true]],
  [["b", "abc"], ["xab", "c"], ["xa", true]],
  [["ك"], ["كتب"], ["", true]],
  [[], ["END"], ["END", false]],
] as [string[], string[], [string, boolean]][])("stops %j in %j", (stops, pieces, expected) => {
  expect(show(stops, pieces)).toEqual(expected);
});

test("every way to cut a text ends it at the same place", () => {
  const text = "ab<|x<|end|>c";
  for (let cuts = 0; cuts < 1 << (text.length - 1); cuts++) {
    const pieces = [""];
    for (let at = 0; at < text.length; at++) {
      if (at > 0 && (cuts >> (at - 1)) & 1) pieces.push("");
      pieces.push(`${pieces.pop()}${text[at]}`);
    }
    expect(show(["<|end|>"], pieces)).toEqual(["ab<|x", true]);
  }
});

test("items keep what they carry, and the one that is cut keeps its text's beginning", () => {
  const held = new Stops<{ text: string; at: number }>(["yz"]);
  expect(held.push({ text: "a", at: 1 }).shown).toEqual([{ text: "a", at: 1 }]);
  expect(held.push({ text: "bxy", at: 2 }).shown).toEqual([]);
  expect(held.push({ text: "z!", at: 3 })).toEqual({ shown: [{ text: "bx", at: 2 }], stopped: true });
});

test("an empty text is refused", () => {
  expect(() => new Stops([""])).toThrow(expect.objectContaining({ code: "bad-input" }));
});
