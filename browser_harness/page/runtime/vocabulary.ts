/** The bytes that tokens stand for. */

/** How a tokenizer writes bytes: as characters of GPT-2's table, or as text with `<0xE2>` for the rest. */
export type ByteKind = "byte_level" | "byte_fallback";

/** A tokenizer's tokens as its file has them; undefined where an id is a special or added token. */
export interface Vocabulary {
  readonly kind: ByteKind;
  readonly tokens: readonly (string | undefined)[];
}

/** tokenizer.json, as far as it is read here. */
export interface TokenizerFile {
  readonly model: { readonly vocab: Readonly<Record<string, number>> | readonly (readonly [string, number])[] };
  readonly added_tokens?: readonly { readonly id: number }[];
  readonly decoder?: unknown;
}

/** The tokens of `file`, or undefined where its decoder writes bytes in neither way. */
export function vocabularyOf(file: TokenizerFile): Vocabulary | undefined {
  const kinds = typesIn(file.decoder);
  const kind = kinds.has("ByteLevel") ? "byte_level" : kinds.has("ByteFallback") ? "byte_fallback" : undefined;
  if (kind === undefined) return undefined;
  const tokens: (string | undefined)[] = [];
  const { vocab } = file.model;
  if (Array.isArray(vocab)) vocab.forEach(([token], id) => (tokens[id] = token));
  else for (const [token, id] of Object.entries(vocab as Readonly<Record<string, number>>)) tokens[id] = token;
  for (const { id } of file.added_tokens ?? []) tokens[id] = undefined;
  return { kind, tokens: Array.from(tokens) };
}

function typesIn(step: unknown): Set<unknown> {
  const { type, decoders = [] } = (step ?? {}) as { type?: unknown; decoders?: readonly unknown[] };
  return new Set([type, ...decoders.flatMap((inner) => [...typesIn(inner)])]);
}

/** The bytes of `token`. */
export function bytesOf(token: string, kind: ByteKind): Uint8Array {
  if (kind === "byte_level") return Uint8Array.from(token, (character) => BYTES.get(character) ?? 0);
  const escaped = /^<0x([0-9A-Fa-f]{2})>$/.exec(token);
  if (escaped) return Uint8Array.of(Number.parseInt(escaped[1] as string, 16));
  return new TextEncoder().encode(token.replaceAll("\u2581", " "));
}

/** GPT-2's table: bytes that are visible characters stand for themselves, the others follow U+0100. */
const BYTES: ReadonlyMap<string, number> = new Map(
  Array.from({ length: 256 }, (_, byte) => byte)
    .sort((a, b) => Number(!isVisible(a)) - Number(!isVisible(b)))
    .map((byte, index) => [String.fromCharCode(isVisible(byte) ? byte : 256 + index - 188), byte]),
);

function isVisible(byte: number): boolean {
  return (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
}

/** Lead bytes after which not every continuation byte may follow (RFC 3629). */
const SECOND: Readonly<Record<number, readonly [number, number]>> = {
  0xe0: [0xa0, 0xbf],
  0xed: [0x80, 0x9f],
  0xf0: [0x90, 0xbf],
  0xf4: [0x80, 0x8f],
};

/**
 * Whether text stays UTF-8 whatever follows `bytes` as continuation bytes in the right number:
 * xgrammar counts these, but does not look at them.
 */
export function staysUtf8(bytes: Uint8Array): boolean {
  let at = bytes.findIndex((byte) => byte >> 6 !== 0b10);
  if (at < 0) return true;
  while (at < bytes.length) {
    const lead = bytes[at] as number;
    const length = lead < 0x80 ? 1 : lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
    if (length === 0) return false;
    const [low, high] = SECOND[lead] ?? [0x80, 0xbf];
    for (let index = 1; index < length; index++) {
      const byte = bytes[at + index];
      if (byte === undefined) return index > 1 || SECOND[lead] === undefined;
      if (byte < (index === 1 ? low : 0x80) || byte > (index === 1 ? high : 0xbf)) return false;
    }
    at += length;
  }
  return true;
}
