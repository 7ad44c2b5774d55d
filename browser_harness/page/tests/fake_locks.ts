/** Just enough of a LockManager for the store: one lock, and nobody waits. */
export class FakeLocks {
  #shared = 0;

  async request<T>(
    _name: string,
    { mode, ifAvailable }: LockOptions,
    work: (lock: object | null) => Promise<T>,
  ): Promise<T> {
    if (mode !== "shared") {
      if (this.#shared > 0 && !ifAvailable) throw new Error("this fake cannot wait");
      return await work(this.#shared > 0 ? null : {});
    }
    this.#shared++;
    try {
      return await work({});
    } finally {
      this.#shared--;
    }
  }
}
