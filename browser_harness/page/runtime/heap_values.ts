import { HeapTensor } from "./heap.ts";
import { HeapCache } from "./heap_cache.ts";

/** Values that a run has so far, by their names in the graph. */
export class HeapValues {
  readonly #constants: ReadonlyMap<string, HeapTensor>;
  readonly #values = new Map<string, HeapTensor | HeapCache>();
  readonly #own = new Set<string>();

  constructor(constants: ReadonlyMap<string, HeapTensor>) {
    this.#constants = constants;
  }

  /** @throws Error where there is no tensor of that name. */
  get(name: string): HeapTensor {
    const tensor = this.#values.get(name) ?? this.#constants.get(name);
    if (!(tensor instanceof HeapTensor)) throw new Error(`nothing made '${name}'`);
    return tensor;
  }

  cache(name: string): HeapCache | undefined {
    const cache = this.#values.get(name);
    return cache instanceof HeapCache ? cache : undefined;
  }

  /** Takes a value that another will give back. */
  lend(name: string, value: HeapTensor | HeapCache): void {
    this.#values.set(name, value);
  }

  /** Takes a value, and gives it back in the end. */
  add(name: string, value: HeapTensor | HeapCache): void {
    this.#values.set(name, value);
    this.#own.add(name);
  }

  /** Hands a value to the caller. */
  take(name: string): HeapTensor | HeapCache {
    this.#own.delete(name);
    return this.cache(name) ?? this.get(name);
  }

  end(name: string): void {
    if (this.#own.delete(name)) this.#values.get(name)?.dispose();
    this.#values.delete(name);
  }

  dispose(): void {
    for (const name of [...this.#own]) this.end(name);
  }
}
