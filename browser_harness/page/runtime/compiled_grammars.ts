import type { CompiledGrammar } from "@mlc-ai/web-xgrammar";

/** Each is memory of the engine's, and a page may come with a schema of its own for every text. */
const MOST = 8;

interface Kept {
  readonly compiled: Promise<CompiledGrammar>;
  /** Texts that are held to it now. */
  users: number;
}

/** A grammar that is not freed before it is given back. */
export interface Borrowed {
  readonly compiled: CompiledGrammar;
  readonly giveBack: () => void;
}

/** The grammars that were used last, compiled; those before them are freed. */
export class CompiledGrammars {
  readonly #compile: (grammar: string) => Promise<CompiledGrammar>;
  /** By their texts, the longest unused first. */
  readonly #kept = new Map<string, Kept>();

  constructor(compile: (grammar: string) => Promise<CompiledGrammar>) {
    this.#compile = compile;
  }

  /** `grammar`, compiled now or before. */
  async borrow(grammar: string): Promise<Borrowed> {
    const kept = this.#kept.get(grammar) ?? { compiled: this.#compile(grammar), users: 0 };
    this.#kept.delete(grammar);
    this.#kept.set(grammar, kept);
    kept.users++;
    const compiled = await kept.compiled.catch((error: unknown) => {
      this.#kept.delete(grammar); // So that the next call may try again.
      throw error;
    });
    await this.#free(MOST);
    const giveBack = () => {
      kept.users--;
      this.#free(MOST).catch(() => undefined); // Nobody waits for it, and what remains is freed with the rest.
    };
    return { compiled, giveBack };
  }

  async dispose(): Promise<void> {
    await this.#free(0);
  }

  /** Frees the longest unused ones beyond `most`, but none in use. */
  async #free(most: number): Promise<void> {
    const idle = [...this.#kept].filter(([, { users }]) => users === 0);
    const beyond = idle.slice(0, Math.max(this.#kept.size - most, 0));
    for (const [grammar] of beyond) this.#kept.delete(grammar); // All, before anybody can ask for one.
    for (const [, { compiled }] of beyond) (await compiled).dispose();
  }
}
