import type {
  FinishReason,
  GeneratedToken,
  GenerateOptions,
  LoadedFacts,
  LogprobOptions,
  Model,
  Prompt,
  ScoredBlock,
  ScoreOptions,
  TokenLogprob,
} from "./api.ts";
import { TabwrightError, throwIfAborted } from "./errors.ts";
import type { Message, RenderedChat } from "./tokenizer.ts";
import { type Reply, type Request, unpack } from "./wire.ts";

/** A call that the worker has not ended yet. */
interface Pending {
  onItem(item: unknown, waits: boolean): void;
  resolve(result: unknown): void;
  reject(error: TabwrightError): void;
}

/** As much of a Worker as is used. */
export interface WorkerLike {
  postMessage(message: Request): void;
  addEventListener(type: "message", listener: (event: MessageEvent<Reply>) => void): void;
  addEventListener(type: "error" | "messageerror", listener: (event: Event) => void): void;
  terminate(): void;
}

/** Calls by number over one worker. */
export class Calls {
  readonly #worker: WorkerLike;
  readonly #pending = new Map<number, Pending>();
  #last = 0;
  #broken: TabwrightError | undefined;

  constructor(worker: WorkerLike) {
    this.#worker = worker;
    worker.addEventListener("message", ({ data }) => this.#hear(data));
    for (const type of ["error", "messageerror"] as const) {
      worker.addEventListener(type, (event) => this.#break((event as ErrorEvent).message ?? type));
    }
  }

  /**
   * Calls `method` and waits for its result; `onItem` hears what comes before it.
   *
   * @throws TabwrightError what the method threw, or `worker-failed`.
   */
  call<R>(
    method: string,
    args: readonly unknown[],
    signal?: AbortSignal,
    onItem: (item: never) => void = () => undefined,
  ): Promise<R> {
    return this.#call(++this.#last, method, args, signal, (item) => onItem(item as never));
  }

  /** As {@link call}, with the items as an iterator. One that is left early stops the worker first. */
  async *stream<T, R>(method: string, args: readonly unknown[], signal?: AbortSignal): AsyncGenerator<T, R> {
    const left = new AbortController();
    const either = signal ? AbortSignal.any([signal, left.signal]) : left.signal;
    const call = ++this.#last;
    const items: { readonly item: T; readonly waits: boolean }[] = [];
    let wake: () => void = () => undefined;
    let ended = false;
    const result = this.#call<R>(call, method, args, either, (item, waits) => {
      items.push({ item: item as T, waits });
      wake();
    }).finally(() => {
      ended = true;
      wake();
    });
    result.catch(() => undefined); // Heard below, unless nobody listens any more.
    try {
      for (;;) {
        for (let come = items.shift(); come !== undefined; come = items.shift()) {
          throwIfAborted(signal);
          yield come.item;
          if (come.waits) this.#worker.postMessage({ call, next: true });
        }
        if (ended) return await result;
        await new Promise<void>((resolve) => (wake = resolve));
      }
    } finally {
      left.abort();
      // The model is free for the next call only once the worker has heard.
      await result.catch(() => undefined);
    }
  }

  /** Ends the worker; calls that wait are told `disposed`. */
  end(): void {
    this.#worker.terminate();
    this.#fail(new TabwrightError("disposed", "the model was disposed"));
  }

  async #call<R>(
    call: number,
    method: string,
    args: readonly unknown[],
    signal: AbortSignal | undefined,
    onItem: Pending["onItem"],
  ): Promise<R> {
    throwIfAborted(signal);
    if (this.#broken) throw this.#broken;
    const stop = () => this.#worker.postMessage({ call, stop: true });
    signal?.addEventListener("abort", stop);
    try {
      return await new Promise<R>((resolve, reject) => {
        this.#pending.set(call, { onItem, resolve: resolve as (result: unknown) => void, reject });
        this.#worker.postMessage({ call, method, args });
      });
    } finally {
      signal?.removeEventListener("abort", stop);
    }
  }

  #hear(reply: Reply): void {
    const pending = this.#pending.get(reply.call);
    if ("item" in reply) return pending?.onItem(reply.item, reply.waits === true);
    this.#pending.delete(reply.call);
    if ("error" in reply) pending?.reject(unpack(reply.error));
    else pending?.resolve(reply.result);
  }

  #break(why: string): void {
    this.#worker.terminate();
    this.#fail(new TabwrightError("worker-failed", `the model's worker failed: ${why}`));
  }

  #fail(error: TabwrightError): void {
    this.#broken = error;
    for (const { reject } of this.#pending.values()) reject(error);
    this.#pending.clear();
  }
}

/** A model in a worker: the page stays free while it computes. */
export class RemoteModel implements Model {
  readonly info: LoadedFacts;
  readonly #calls: Calls;
  #disposed = false;

  constructor(info: LoadedFacts, calls: Calls) {
    this.info = info;
    this.#calls = calls;
  }

  generate(prompt: Prompt, options: GenerateOptions = {}): AsyncGenerator<GeneratedToken, FinishReason> {
    const { signal, ...plain } = options;
    return this.#calls.stream("generate", [prompt, plain], signal);
  }

  score(tokens: readonly number[], options: ScoreOptions = {}): AsyncGenerator<ScoredBlock, void> {
    const { signal, ...plain } = options;
    return this.#calls.stream("score", [tokens, plain], signal);
  }

  logprobs(tokens: readonly number[], options: LogprobOptions = {}): AsyncGenerator<TokenLogprob, void> {
    const { signal, ...plain } = options;
    return this.#calls.stream("logprobs", [tokens, plain], signal);
  }

  tokenize(text: string): Promise<number[]> {
    return this.#calls.call("tokenize", [text]);
  }

  detokenize(ids: readonly number[]): Promise<string> {
    return this.#calls.call("detokenize", [ids]);
  }

  tokenBytes(ids: readonly number[]): Promise<(Uint8Array | null)[]> {
    return this.#calls.call("tokenBytes", [ids]);
  }

  render(messages: readonly Message[]): Promise<RenderedChat> {
    return this.#calls.call("render", [messages]);
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return;
    await this.#calls.call("dispose", []);
    // Gives back what a page's own thread never would: the WASM heap.
    this.#calls.end();
    this.#disposed = true;
  }
}
