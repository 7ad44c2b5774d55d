/** xgrammar as a module of the bundle: its own file is a script that leaves its exports in a global. */
import "@mlc-ai/web-xgrammar";

import type { GrammarCompiler, GrammarMatcher, TokenizerInfo } from "@mlc-ai/web-xgrammar";

/** What {@link Constrainer} uses of it. */
export interface Engine {
  readonly TokenizerInfo: typeof TokenizerInfo;
  readonly GrammarCompiler: typeof GrammarCompiler;
  readonly GrammarMatcher: typeof GrammarMatcher;
}

export const engine = (globalThis as unknown as { readonly xgrammar: Engine }).xgrammar;
