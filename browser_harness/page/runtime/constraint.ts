import type { GrammarCompiler, GrammarMatcher, TokenizerInfo } from "@mlc-ai/web-xgrammar";

import type { Engine } from "../engine/xgrammar.ts";
import { CompiledGrammars } from "./compiled_grammars.ts";
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
  readonly grammars: CompiledGrammars;
}

/** Makes constraints for one model. The engine is started by the first of them. */
export class Constrainer {
  readonly #start: () => Promise<Engine>;
  readonly #vocabulary: Vocabulary | undefined;
  readonly #size: number;
  #started: Promise<Started> | undefined;

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
   * @throws TabwrightError `schema-unsupported`, or `run-failed` when the engine does not start.
   */
  async constrain(schema: JsonSchema, stops: readonly number[]): Promise<HeldConstraint> {
    const grammar = grammarOf(schema);
    if (stops.length === 0) throw new TabwrightError("schema-unsupported", "no token ends a value: 'stopTokens' is empty");
    this.#started ??= this.#open().catch((error: unknown) => {
      this.#started = undefined; // So that the next call may try again.
      throw error;
    });
    const { engine, grammars } = await this.#started;
    try {
      const { compiled, giveBack } = await grammars.borrow(grammar);
      try {
        return new Matched(await engine.GrammarMatcher.createGrammarMatcher(compiled, [...stops]), giveBack);
      } catch (error) {
        giveBack();
        throw error;
      }
    } catch (error) {
      throw new TabwrightError("schema-unsupported", `the grammar of the schema was refused: ${reason(error)}`, error);
    }
  }

  /** Frees what the engine holds for this model. */
  async dispose(): Promise<void> {
    const started = await this.#started;
    await started?.grammars.dispose();
    started?.compiler.dispose();
    started?.info.dispose();
  }

  async #open(): Promise<Started> {
    const vocabulary = this.#vocabulary;
    if (vocabulary === undefined) {
      throw new TabwrightError("schema-unsupported", "this model's tokenizer does not tell the bytes of its tokens");
    }
    // An empty token is never allowed: special ones are no text, and these would be none.
    const fit = vocabulary.tokens.map((token) =>
      token !== undefined && staysUtf8(bytesOf(token, vocabulary.kind)) ? token : "",
    );
    try {
      const engine = await this.#start();
      const info = await engine.TokenizerInfo.createTokenizerInfo(fit, vocabulary.kind, false, this.#size, []);
      const compiler = await engine.GrammarCompiler.createGrammarCompiler(info, false);
      const grammars = new CompiledGrammars((grammar) => compiler.compileGrammar(grammar));
      return { engine, info, compiler, grammars };
    } catch (error) {
      if (error instanceof TabwrightError) throw error;
      throw new TabwrightError("run-failed", `the engine for schemas did not start: ${reason(error)}`, error);
    }
  }
}

class Matched implements HeldConstraint {
  readonly #matcher: GrammarMatcher;
  readonly #giveBack: () => void;

  constructor(matcher: GrammarMatcher, giveBack: () => void) {
    this.#matcher = matcher;
    this.#giveBack = giveBack;
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
    this.#giveBack();
  }
}

/**
 * What starts the engine from its verified bytes. They are copied to memory: the stored ones may be
 * deleted as soon as the load is over. The copy is all of the load that is kept alive for it.
 *
 * @param script undefined where the bundle has none.
 */
export async function engineStarter(script: Blob | undefined): Promise<() => Promise<Engine>> {
  const copy = script && new Blob([await script.arrayBuffer()], { type: "text/javascript" });
  return () => importEngine(copy);
}

async function importEngine(script: Blob | undefined): Promise<Engine> {
  if (!script) throw new TabwrightError("schema-unsupported", "the bundle has no engine that holds answers to a schema");
  const url = URL.createObjectURL(script);
  try {
    const { engine } = (await import(url)) as { engine: Engine };
    return engine;
  } finally {
    URL.revokeObjectURL(url);
  }
}
