const REPLACEMENT = "\uFFFD";

/**
 * Turns tokens into text as they come. A character whose bytes are spread over
 * several tokens appears whole, with the last of them.
 */
export class IncrementalDecoder {
  readonly #decode: (ids: readonly number[]) => string;
  /** The tokens whose text is out, kept as context for spacing, then those held back. */
  #window: number[] = [];
  #shown = 0;

  constructor(decode: (ids: readonly number[]) => string) {
    this.#decode = decode;
  }

  /** The text that `id` completes; may be empty. */
  push(id: number): string {
    this.#window.push(id);
    return this.#emit((text) => !text.endsWith(REPLACEMENT));
  }

  /** What is still held back: bytes that never became a character. */
  flush(): string {
    return this.#emit(() => true);
  }

  #emit(whole: (text: string) => boolean): string {
    const before = this.#decode(this.#window.slice(0, this.#shown));
    const after = this.#decode(this.#window);
    if (!whole(after)) return "";
    // The next text is the difference to this piece: decoders may drop a leading space.
    this.#window = this.#window.slice(this.#shown);
    this.#shown = this.#window.length;
    return after.slice(before.length);
  }
}
