interface Waiting {
  readonly shared: boolean;
  readonly begin: () => void;
}

/** One lock of a fake LockManager: who holds it, and who waits in what order. */
class FakeLock {
  readonly #queue: Waiting[] = [];
  #shared = 0;
  #exclusive = false;

  free(shared: boolean): boolean {
    return !this.#exclusive && (shared || this.#shared === 0) && this.#queue.length === 0;
  }

  async hold<T>(shared: boolean, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    if (!this.free(shared)) {
      await new Promise<void>((begin, fail) => {
        const waiting = { shared, begin };
        this.#queue.push(waiting);
        signal?.addEventListener("abort", () => {
          this.#queue.splice(this.#queue.indexOf(waiting), 1);
          fail(signal.reason);
        });
      });
    }
    if (shared) this.#shared++;
    else this.#exclusive = true;
    try {
      return await work();
    } finally {
      if (shared) this.#shared--;
      else this.#exclusive = false;
      const next = this.#queue[0];
      if (next && !this.#exclusive && (next.shared || this.#shared === 0)) {
        this.#queue.shift();
        next.begin();
      }
    }
  }
}

/** As much of a LockManager as the store uses, in the order of the Web Locks specification. */
export class FakeLocks {
  readonly #locks = new Map<string, FakeLock>();

  async request<T>(
    name: string,
    { mode, ifAvailable, signal }: LockOptions,
    work: (lock: object | null) => Promise<T>,
  ): Promise<T> {
    signal?.throwIfAborted();
    const lock = this.#locks.get(name) ?? new FakeLock();
    this.#locks.set(name, lock);
    const shared = mode === "shared";
    if (ifAvailable && !lock.free(shared)) return await work(null);
    return await lock.hold(shared, signal, () => work({}));
  }
}
