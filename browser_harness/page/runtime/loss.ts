/**
 * Ends what waits for a device when the device is lost. `Promise.race` would do so too, but it
 * adds a reaction to the loss at every call, and while that is pending each keeps its race's
 * result alive: a row of logits for every token.
 */
export class Loss {
  readonly #waiting = new Set<(error: unknown) => void>();
  #lost: { readonly error: unknown } | undefined;

  /** @param lost rejects when the device is lost; never resolves. */
  constructor(lost: Promise<never>) {
    lost.catch((error: unknown) => {
      this.#lost = { error };
      for (const reject of this.#waiting) reject(error);
      this.#waiting.clear();
    });
  }

  /** How much work is under way. */
  get waiting(): number {
    return this.#waiting.size;
  }

  /** What `work` comes to, or the loss where that comes first. */
  guard<T>(work: Promise<T>): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (this.#lost) reject(this.#lost.error);
      else this.#waiting.add(reject);
      work.then(
        (value) => {
          this.#waiting.delete(reject);
          resolve(value);
        },
        (error: unknown) => {
          this.#waiting.delete(reject);
          reject(error);
        },
      );
    });
  }
}
