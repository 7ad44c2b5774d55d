import { expect, test } from "vitest";

import type { GeneratedToken, LoadedFacts, Model } from "../runtime/api.ts";
import { Calls, RemoteModel, type WorkerLike } from "../runtime/client.ts";
import { TabwrightError, throwIfAborted } from "../runtime/errors.ts";
import { Host } from "../runtime/host.ts";
import type { Reply, Request } from "../runtime/wire.ts";

/** Counts up, a token a turn of the event loop, and says what it was doing when it was stopped. */
class CountingModel implements Partial<Model> {
  readonly info = { target: "t" } as LoadedFacts;
  running = 0;
  disposed = false;
  /** Whatever was given of {@link score}. */
  readonly given: Float32Array[] = [];

  async *generate(_prompt: unknown, { maxNewTokens = 3, signal }: { maxNewTokens?: number; signal?: AbortSignal }) {
    this.running++;
    try {
      for (let token = 0; token < maxNewTokens; token++) {
        throwIfAborted(signal);
        yield { token, text: `${token}`, atMs: token } satisfies GeneratedToken;
        await new Promise((resolve) => setTimeout(resolve));
      }
      return "length" as const;
    } finally {
      this.running--;
    }
  }

  async *score() {
    this.running++;
    try {
      for (let start = 0; start < 3; start++) {
        const logits = Float32Array.of(start, 2);
        this.given.push(logits);
        yield { start, rows: 1, vocabulary: 2, logits };
      }
    } finally {
      this.running--;
    }
  }

  async tokenBytes(ids: readonly number[]): Promise<(Uint8Array | null)[]> {
    return ids.map((id) => (id === 0 ? null : Uint8Array.of(0x20, id)));
  }

  async tokenize(text: string): Promise<number[]> {
    if (text === "bad") throw new TabwrightError("bad-input", "no");
    if (text === "worse") throw new TypeError("a bug");
    return Array.from(text, Number);
  }

  async dispose(): Promise<void> {
    this.disposed = true;
  }
}

/** A worker that is a message channel, so that everything is cloned as in a real one. */
class ChannelWorker implements WorkerLike {
  readonly host = new CountingModel();
  readonly #channel = new MessageChannel();
  #onError: (event: Event) => void = () => undefined;
  terminated = false;

  constructor() {
    const { port1, port2 } = this.#channel;
    const port = {
      postMessage: (message: Reply, transfer: Transferable[]) => port2.postMessage(message, transfer as never),
      addEventListener: (_: "message", listener: (event: MessageEvent<Request>) => void) => {
        port2.onmessage = listener as never;
      },
    };
    new Host(port, async (_url, options) => {
      options?.onProgress?.({ phase: "download", done: 1, total: 2, file: "f" });
      return this.host as unknown as Model;
    });
    port1.start();
  }

  postMessage(message: Request): void {
    this.#channel.port1.postMessage(message);
  }

  addEventListener(type: string, listener: (event: never) => void): void {
    if (type === "message") this.#channel.port1.onmessage = listener as never;
    else this.#onError = listener as never;
  }

  crash(message: string): void {
    this.#onError(Object.assign(new Event("error"), { message }));
  }

  terminate(): void {
    this.terminated = true;
    this.#channel.port1.close();
  }
}

async function open(): Promise<{ worker: ChannelWorker; model: RemoteModel; progress: unknown[] }> {
  const worker = new ChannelWorker();
  const calls = new Calls(worker);
  const progress: unknown[] = [];
  const info = await calls.call<LoadedFacts>("load", ["url", {}], undefined, (item) => progress.push(item));
  return { worker, model: new RemoteModel(info, calls), progress };
}

test("loads with progress, and tells what was loaded", async () => {
  const { model, progress, worker } = await open();
  expect(model.info).toEqual({ target: "t" });
  expect(progress).toEqual([{ phase: "download", done: 1, total: 2, file: "f" }]);
  await model.dispose();
  expect(worker.host.disposed).toBe(true);
});

test("tokens come in order, then why they ended", async () => {
  const { model } = await open();
  const tokens = model.generate("x", { maxNewTokens: 3 });
  const seen: number[] = [];
  let next = await tokens.next();
  for (; !next.done; next = await tokens.next()) seen.push(next.value.token);
  expect(seen).toEqual([0, 1, 2]);
  expect(next.value).toBe("length");
  await model.dispose();
});

test("leaving the loop early stops the worker before anything else runs", async () => {
  const { model, worker } = await open();
  for await (const { token } of model.generate("x", { maxNewTokens: 1e6 })) if (token === 2) break;
  expect(worker.host.running).toBe(0);
  await model.dispose();
});

test("an abort reaches the worker and comes back typed", async () => {
  const { model, worker } = await open();
  const control = new AbortController();
  const reading = (async () => {
    for await (const { token } of model.generate("x", { maxNewTokens: 1e6, signal: control.signal })) {
      if (token === 1) control.abort();
    }
  })();
  await expect(reading).rejects.toMatchObject({ name: "TabwrightError", code: "aborted" });
  expect(worker.host.running).toBe(0);
  await model.dispose();
});

test("a call that was aborted before it began is not sent", async () => {
  const { model } = await open();
  const tokens = model.generate("x", { signal: AbortSignal.abort() });
  await expect(tokens.next()).rejects.toMatchObject({ code: "aborted" });
  await model.dispose();
});

test("logits cross without being copied", async () => {
  const { model, worker } = await open();
  const seen: number[][] = [];
  for await (const { logits } of model.score([1])) seen.push([...logits]);
  expect(seen).toEqual([[0, 2], [1, 2], [2, 2]]);
  // Given away: the worker's own are empty.
  expect(worker.host.given.map(({ buffer }) => buffer.byteLength)).toEqual([0, 0, 0]);
  await model.dispose();
});

test("logits are computed when they are asked for, and not before", async () => {
  const { model, worker } = await open();
  const blocks = model.score([1]);
  for (const count of [1, 2]) {
    await blocks.next();
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(worker.host.given).toHaveLength(count);
  }
  // The worker waits to be asked for the third: who leaves ends that.
  await blocks.return();
  expect(worker.host.running).toBe(0);
  await model.dispose();
});

test("an abort ends a worker that waits to be asked for more logits", async () => {
  const { model, worker } = await open();
  const control = new AbortController();
  const blocks = model.score([1], { signal: control.signal });
  await blocks.next();
  control.abort();
  await expect(blocks.next()).rejects.toMatchObject({ code: "aborted" });
  expect(worker.host.running).toBe(0);
  await model.dispose();
});

test("a token's bytes cross as they are", async () => {
  const { model } = await open();
  expect(await model.tokenBytes([0xe2, 0])).toEqual([Uint8Array.of(0x20, 0xe2), null]);
  await model.dispose();
});

test("errors keep their code, and a bug is told as the worker's failure", async () => {
  const { model } = await open();
  expect(await model.tokenize("12")).toEqual([1, 2]);
  await expect(model.tokenize("bad")).rejects.toMatchObject({ code: "bad-input", message: "no" });
  await expect(model.tokenize("worse")).rejects.toMatchObject({ code: "worker-failed" });
  await model.dispose();
});

test("a worker that breaks fails the calls that wait, and those after them", async () => {
  const { model, worker } = await open();
  const waiting = model.tokenize("1");
  worker.crash("out of memory");
  await expect(waiting).rejects.toMatchObject({ code: "worker-failed", message: expect.stringMatching(/out of memory/) });
  await expect(model.tokenize("1")).rejects.toMatchObject({ code: "worker-failed" });
  expect(worker.terminated).toBe(true);
});

test("a disposed model ends its worker, once, and refuses calls", async () => {
  const { model, worker } = await open();
  await model.dispose();
  await model.dispose();
  expect(worker.terminated).toBe(true);
  await expect(model.tokenize("1")).rejects.toMatchObject({ code: "disposed" });
});

test("nothing comes after an abort, though the worker had sent more", async () => {
  const { worker, model } = await open();
  const control = new AbortController();
  const seen: number[] = [];
  const answer = async () => {
    for await (const { token } of model.generate("", { maxNewTokens: 50, signal: control.signal })) {
      seen.push(token);
      // Long enough for the worker to be several tokens ahead.
      await new Promise((resolve) => setTimeout(resolve, 30));
      if (seen.length === 2) control.abort();
    }
  };
  await expect(answer()).rejects.toMatchObject({ code: "aborted" });
  expect(seen).toEqual([0, 1]);
  expect(worker.host.running).toBe(0);
});
