import type { Gpu } from "./device.ts";
import { sha256 } from "./digest.ts";
import type { Way } from "./schema.ts";
import type { ChunkStore } from "./store.ts";

/** Of the browser's own words about itself, those that change when it is updated. */
interface BrowserData {
  getHighEntropyValues(hints: readonly string[]): Promise<unknown>;
}

/**
 * Remembers that a bundle's self-check was passed, so that the next load need not pay for it.
 * A pass holds for the same bundle, loaded the same way, on the same adapter and device
 * features, by the same browser and ONNX Runtime.
 */
export class Passes {
  readonly #store: ChunkStore;
  readonly #bundle: string;
  readonly #runtime: string;

  /** @param seal of the bundle's manifest. */
  constructor(store: ChunkStore, seal: string, runtime: string) {
    this.#store = store;
    this.#bundle = seal;
    this.#runtime = runtime;
  }

  async has(way: Way, gpu: Gpu | undefined): Promise<boolean> {
    return await this.#store.hasPass(await this.#name(way, gpu));
  }

  async keep(way: Way, gpu: Gpu | undefined): Promise<void> {
    await this.#store.putPass(await this.#name(way, gpu));
  }

  /** A bundle's passes begin with its seal, so that they can be deleted with it. */
  async #name(way: Way, gpu: Gpu | undefined): Promise<string> {
    const { target, device_features, loop, prefill_chunk } = way;
    const about = [
      [target, device_features, loop, prefill_chunk],
      gpu && [gpu.adapter, gpu.software],
      this.#runtime,
      await browserVersion(),
    ];
    return `${this.#bundle}-${await sha256(new TextEncoder().encode(JSON.stringify(about)))}`;
  }
}

async function browserVersion(): Promise<unknown> {
  const { userAgentData } = navigator as { readonly userAgentData?: BrowserData };
  return [navigator.userAgent, await userAgentData?.getHighEntropyValues(["fullVersionList", "platformVersion"])];
}
