/**
 * Measures the wall time in which at least one piece of work was in a phase, so
 * that work done in parallel is not counted twice. Milliseconds.
 */
export class PhaseClock {
  #running = 0;
  #since = 0;
  #total = 0;

  async time<T>(work: () => Promise<T>): Promise<T> {
    if (this.#running++ === 0) this.#since = performance.now();
    try {
      return await work();
    } finally {
      if (--this.#running === 0) this.#total += performance.now() - this.#since;
    }
  }

  get ms(): number {
    return this.#total + (this.#running > 0 ? performance.now() - this.#since : 0);
  }
}
