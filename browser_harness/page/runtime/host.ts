import type { GenerateOptions, LogprobOptions, Model, Prompt, ScoreOptions } from "./api.ts";
import { TabwrightError, throwIfAborted } from "./errors.ts";
import { loadHere, type LoadOptions } from "./load.ts";
import type { Message } from "./tokenizer.ts";
import { pack, type Reply, type Request } from "./wire.ts";

/** One call: what it was asked, the means to send items, and word that nobody listens any more. */
interface Call {
  readonly emit: (item: unknown) => void;
  /** Sends a large item, which is given away, and waits until the page wants the next. */
  readonly hand: (item: unknown, transfer: Transferable[]) => Promise<void>;
  readonly signal: AbortSignal;
}

/** What the page may say of a call that has not ended. */
interface Running {
  next(): void;
  stop(): void;
}

/** The side of a worker that a page talks to. */
export interface Port {
  postMessage(message: Reply, transfer: Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent<Request>) => void): void;
}

/** Answers a page's calls with one model. */
export class Host {
  readonly #port: Port;
  readonly #load: typeof loadHere;
  readonly #running = new Map<number, Running>();
  #model: Model | undefined;

  constructor(port: Port, load: typeof loadHere = loadHere) {
    this.#port = port;
    this.#load = load;
    port.addEventListener("message", ({ data }) => {
      if ("stop" in data) this.#running.get(data.call)?.stop();
      else if ("next" in data) this.#running.get(data.call)?.next();
      else void this.#answer(data.call, data.method, data.args);
    });
  }

  async #answer(call: number, method: string, args: readonly unknown[]): Promise<void> {
    const control = new AbortController();
    const { signal } = control;
    let wake: () => void = () => undefined;
    const stop = () => {
      control.abort();
      wake();
    };
    this.#running.set(call, { next: () => wake(), stop });
    const emit: Call["emit"] = (item) => this.#port.postMessage({ call, item }, []);
    const hand: Call["hand"] = async (item, transfer) => {
      throwIfAborted(signal); // Who has left wants no next one.
      const wanted = new Promise<void>((resolve) => (wake = resolve));
      this.#port.postMessage({ call, item, waits: true }, transfer);
      await wanted;
    };
    let reply: Reply;
    try {
      const run = (this.#methods as unknown as Record<string, Method>)[method] as Method;
      reply = { call, result: await run({ emit, hand, signal }, ...args) };
    } catch (error) {
      reply = { call, error: pack(error) };
    }
    this.#running.delete(call);
    this.#port.postMessage(reply, []);
  }

  readonly #methods = {
    load: async ({ emit, signal }: Call, manifestUrl: string, options: LoadOptions) => {
      this.#model = await this.#load(manifestUrl, { ...options, signal, onProgress: emit });
      return this.#model.info;
    },

    generate: async ({ emit, signal }: Call, prompt: Prompt, options: GenerateOptions) => {
      const tokens = this.#loaded().generate(prompt, { ...options, signal });
      for (;;) {
        const next = await tokens.next();
        if (next.done) return next.value;
        emit(next.value);
      }
    },

    score: async ({ hand, signal }: Call, tokens: readonly number[], options: ScoreOptions) => {
      for await (const block of this.#loaded().score(tokens, { ...options, signal })) {
        await hand(block, [block.logits.buffer]);
      }
    },

    logprobs: async ({ emit, signal }: Call, tokens: readonly number[], options: LogprobOptions) => {
      for await (const item of this.#loaded().logprobs(tokens, { ...options, signal })) emit(item);
    },

    tokenize: async (_: Call, text: string) => this.#loaded().tokenize(text),
    detokenize: async (_: Call, ids: readonly number[]) => this.#loaded().detokenize(ids),
    tokenBytes: async (_: Call, ids: readonly number[]) => this.#loaded().tokenBytes(ids),
    render: async (_: Call, messages: readonly Message[]) => this.#loaded().render(messages),
    dispose: async () => this.#loaded().dispose(),
  };

  #loaded(): Model {
    if (!this.#model) throw new TabwrightError("disposed", "no model is loaded");
    return this.#model;
  }
}

type Method = (call: Call, ...args: readonly unknown[]) => Promise<unknown>;
