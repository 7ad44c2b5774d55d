import { TabwrightError } from "./errors.ts";

/** Finds texts that end an answer, and holds back whatever may yet turn out to begin one. */
export class Stops<Item extends { readonly text: string }> {
  readonly #texts: readonly string[];
  #held: Item[] = [];

  /** @throws TabwrightError `bad-input` where one of `texts` is empty or no text. */
  constructor(texts: readonly string[]) {
    checkTexts(texts);
    if (texts.includes("")) throw new TabwrightError("bad-input", "an empty text in 'stop' would end every answer");
    this.#texts = texts;
  }

  /** The items that can be shown now that `item` has come, and whether one of the texts is whole. */
  push(item: Item): { readonly shown: readonly Item[]; readonly stopped: boolean } {
    this.#held.push(item);
    const pending = this.#held.map(({ text }) => text).join("");
    const found = this.#texts.map((text) => pending.indexOf(text)).filter((at) => at >= 0);
    if (found.length > 0) {
      const shown = this.#take(Math.min(...found));
      this.#held = [];
      return { shown, stopped: true };
    }
    let safe = pending.length;
    for (let at = pending.length - 1; at >= 0; at--) {
      if (this.#texts.some((text) => text.startsWith(pending.slice(at)))) safe = at;
    }
    const whole = this.#wholeBefore(safe);
    return { shown: this.#held.splice(0, whole), stopped: false };
  }

  /** What is still held back. */
  flush(): Item[] {
    return this.#held.splice(0);
  }

  /** The items of the first `length` characters; the last of them may be cut. */
  #take(length: number): Item[] {
    const whole = this.#wholeBefore(length);
    const shown = this.#held.slice(0, whole);
    const rest = length - shown.reduce((sum, { text }) => sum + text.length, 0);
    const cut = this.#held[whole];
    if (cut !== undefined && rest > 0) shown.push({ ...cut, text: cut.text.slice(0, rest) });
    return shown;
  }

  /** How many items end within the first `length` characters. */
  #wholeBefore(length: number): number {
    let end = 0;
    const after = this.#held.findIndex(({ text }) => (end += text.length) > length);
    return after < 0 ? this.#held.length : after;
  }
}

/** @throws TabwrightError `bad-input` where one of `stops` is no text, as pages without types may give. */
export function checkTexts(stops: readonly unknown[]): void {
  if (stops.every((text) => typeof text === "string")) return;
  throw new TabwrightError("bad-input", "'stop' must be text, or a list of texts");
}
