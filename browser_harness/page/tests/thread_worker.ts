import { resolveObjectURL } from "node:buffer";
import { Worker as Thread } from "node:worker_threads";

/** What a page's worker has and Node's lacks. */
const SCOPE = `const { parentPort } = require("node:worker_threads");
globalThis.postMessage = (data) => parentPort.postMessage(data);
parentPort.on("message", (data) => void onmessage({ data }));
// A page does not hear of promises that its worker leaves rejected.
process.on("unhandledRejection", () => undefined);
`;

/** As much of a page's Worker as the kernel uses, over a thread of Node's. */
export class ThreadWorker {
  /** Those that nobody has ended. */
  static readonly running = new Set<ThreadWorker>();
  onmessage: ((event: { readonly data: unknown }) => void) | undefined;
  onerror: ((event: { readonly message: string }) => void) | undefined;
  readonly #thread: Promise<Thread>;

  constructor(url: string) {
    const script = resolveObjectURL(url);
    if (!script) throw new Error(`there is nothing at ${url}`);
    ThreadWorker.running.add(this);
    this.#thread = script.text().then((text) => {
      const thread = new Thread(SCOPE + text, { eval: true });
      thread.on("message", (data) => this.onmessage?.({ data }));
      thread.on("error", ({ message }) => this.onerror?.({ message }));
      return thread;
    });
  }

  postMessage(data: unknown): void {
    void this.#thread.then((thread) => thread.postMessage(data));
  }

  terminate(): void {
    ThreadWorker.running.delete(this);
    void this.#thread.then((thread) => thread.terminate());
  }
}
