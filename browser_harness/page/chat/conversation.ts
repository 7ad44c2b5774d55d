import { type GenerateOptions, type Message, type Model, TabwrightError } from "../runtime/index.ts";

/** An answer ends here even when the model does not end it. */
export const MAX_NEW_TOKENS = 1024;

/** The answer so far. */
export interface Said {
  readonly text: string;
  readonly tokens: number;
  /** From the first token to this one, in milliseconds. */
  readonly sinceFirstMs: number;
}

/** Whether the turn became part of the conversation, and what broke it if anything did. */
export interface Outcome {
  readonly kept: boolean;
  readonly error?: unknown;
}

/**
 * The turns that the model reads. A question stays only with an answer to it: one that
 * failed, or that was stopped before its first word, is taken back with its question.
 */
export class Conversation {
  readonly #turns: Message[] = [];

  get turns(): readonly Message[] {
    return this.#turns;
  }

  clear(): void {
    this.#turns.length = 0;
  }

  /** Asks `model`; `onSaid` hears of every token. An answer that `signal` stops is kept as it is. */
  async ask(
    model: Pick<Model, "generate">,
    question: string,
    signal: AbortSignal,
    onSaid: (said: Said) => void,
  ): Promise<Outcome> {
    const asked: Message[] = [...this.#turns, { role: "user", content: question }];
    const options: GenerateOptions = { maxNewTokens: MAX_NEW_TOKENS, signal };
    let text = "";
    let tokens = 0;
    let first = 0;
    try {
      for await (const piece of model.generate(asked, options)) {
        text += piece.text;
        if (tokens++ === 0) first = piece.atMs;
        onSaid({ text, tokens, sinceFirstMs: piece.atMs - first });
      }
    } catch (error) {
      const stopped = error instanceof TabwrightError && error.code === "aborted";
      if (!stopped) return { kept: false, error };
    }
    if (text === "") return { kept: false };
    this.#turns.push(...asked.slice(-1), { role: "assistant", content: text });
    return { kept: true };
  }
}
