import type { CompiledGrammar, GrammarCompiler, GrammarMatcher, TokenizerInfo } from "@mlc-ai/web-xgrammar";

import type { Engine } from "../engine/xgrammar.ts";
import { reason, TabwrightError } from "./errors.ts";
import { grammarOf, type JsonSchema } from "./grammar.ts";
import { bytesOf, staysUtf8, type Vocabulary } from "./vocabulary.ts";

/** What the tokens of one text must fit. */
export interface Constraint {
  /**
   * The tokens that may come next, a bit each: int32 [ceil(vocabulary / 32)], lowest bit first.
   *
   * @throws TabwrightError `schema-unsupported` when no token goes on.
   */
  allowed(): Promise<Int32Array<ArrayBuffer>>;

  /** @throws TabwrightError `run-failed` when `token` is none of those. */
  accept(token: number): void;
}

/** A constraint that holds memory of the engine. */
export interface HeldConstraint extends Constraint {
  dispose(): void;
}

interface Started {
  readonly engine: Engine;
  readonly info: TokenizerInfo;
  readonly compiler: GrammarCompiler;
}

/** Makes constraints for one model. The engine is started by the first of them. */
export class Constrainer {
  readonly #start: () => Promise<Engine>;
  readonly #vocabulary: Vocabulary | undefined;
  readonly #size: number;
  #started: Promise<Started> | undefined;
  readonly #compiled = new Map<string, CompiledGrammar>();

  /**
   * @param vocabulary undefined where it is not known what bytes a token stands for.
   * @param size how many logits there are: the vocabulary's size with its padding.
   */
  constructor(start: () => Promise<Engine>, vocabulary: Vocabulary | undefined, size: number) {
    this.#start = start;
    this.#vocabulary = vocabulary;
    this.#size = size;
  }

  /**
   * Holds a text to `schema`: one of `stops` may come where a value is whole, and only there.
   *
   * @throws TabwrightError `schema-unsupported`.
   */
  async constrain(schema: JsonSchema, stops: readonly number[]): Promise<HeldConstraint> {
    const grammar = grammarOf(schema);
    if (stops.length === 0) throw new TabwrightError("schema-unsupported", "no token ends a value: 'stopTokens' is empty");
    this.#started ??= this.#open().catch((error: unknown) => {
      this.#started = undefined; // So that the next call may try again.
      throw error;
    });
    const { engine, compiler } = await this.#started;
    try {
      const compiled = this.#compiled.get(grammar) ?? (await compiler.compileGrammar(grammar));
      this.#compiled.set(grammar, compiled);
      return new Matched(await engine.GrammarMatcher.createGrammarMatcher(compiled, [...stops]));
    } catch (error) {
      throw new TabwrightError("schema-unsupported", `the grammar of the schema was refused: ${reason(error)}`, error);
    }
  }

  /** Frees what the engine holds for this model. */
  async dispose(): Promise<void> {
    for (const compiled of this.#compiled.values()) compiled.dispose();
    const started = await this.#started;
    started?.compiler.dispose();
    started?.info.dispose();
  }

  async #open(): Promise<Started> {
    const vocabulary = this.#vocabulary;
    if (vocabulary === undefined) {
      throw new TabwrightError("schema-unsupported", "this model's tokenizer does not tell the bytes of its tokens");
    }
    const engine = await this.#start();
    // An empty token is never allowed: special ones are no text, and these would be none.
    const fit = vocabulary.tokens.map((token) =>
      token !== undefined && staysUtf8(bytesOf(token, vocabulary.kind)) ? token : "",
    );
    const info = await engine.TokenizerInfo.createTokenizerInfo(fit, vocabulary.kind, false, this.#size, []);
    return { engine, info, compiler: await engine.GrammarCompiler.createGrammarCompiler(info, false) };
  }
}

class Matched implements HeldConstraint {
  readonly #matcher: GrammarMatcher;

  constructor(matcher: GrammarMatcher) {
    this.#matcher = matcher;
  }

  async allowed(): Promise<Int32Array<ArrayBuffer>> {
    const bits = Int32Array.from(await this.#matcher.getNextTokenBitmask());
    if (bits.every((word) => word === 0)) {
      throw new TabwrightError("schema-unsupported", "no token of the vocabulary goes on with what the schema wants");
    }
    return bits;
  }

  accept(token: number): void {
    if (!this.#matcher.acceptToken(token)) {
      throw new TabwrightError("run-failed", `token ${token} was chosen though the schema forbids it: are the logits numbers?`);
    }
  }

  dispose(): void {
    this.#matcher.dispose();
  }
}

/** Runs the engine's verified bytes. */
export async function importEngine(script: Blob): Promise<Engine> {
  const url = URL.createObjectURL(new Blob([script], { type: "text/javascript" }));
  try {
    const { engine } = (await import(url)) as { engine: Engine };
    return engine;
  } finally {
    URL.revokeObjectURL(url);
  }
}
