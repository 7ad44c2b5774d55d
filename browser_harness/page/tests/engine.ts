import type { Engine } from "../engine/xgrammar.ts";
import type { Vocabulary } from "../runtime/vocabulary.ts";

// Its script wants to know where it is, as a browser would tell it.
Object.assign(globalThis, { location: { href: import.meta.url } });
const { engine } = await import("../engine/xgrammar.ts");

export async function startEngine(): Promise<Engine> {
  return engine;
}

/** Ends every text. */
export const END = 0;

/** GPT-2's byte characters, in the order of their bytes. */
const CHARACTERS = (() => {
  const visible = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(visible(byte) ? byte : next++));
})();

export function written(bytes: Iterable<number>): string {
  return Array.from(bytes, (byte) => CHARACTERS[byte]).join("");
}

const WORDS = ['{"', '":', '": ', '","', '"}', "null", "true", " false", "\n  ", "}}", "كت", "ب", "café", "12", '\\"', "\\u00", "e5", "]]"];

/** An end, every byte by itself, words across JSON's signs, and a cut through an Arabic letter. */
export const VOCABULARY: Vocabulary = {
  kind: "byte_level",
  tokens: [
    undefined,
    ...CHARACTERS,
    ...WORDS.map((word) => written(new TextEncoder().encode(word))),
    written([0xd9, 0x84, 0xd8]),
  ],
};

/** The bytes of one of {@link VOCABULARY}'s tokens, without the code under test. */
export function bytesIn(token: number): number[] {
  return Array.from(VOCABULARY.tokens[token] as string, (character) => CHARACTERS.indexOf(character));
}
