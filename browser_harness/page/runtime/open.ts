import type { LoadedFacts, Model } from "./api.ts";
import { Calls, RemoteModel } from "./client.ts";
import { browserTransport } from "./connection.ts";
import { TabwrightError } from "./errors.ts";
import { loadHere, type LoadOptions } from "./load.ts";
import { fetchVerified, readManifest } from "./served.ts";
import { openStore } from "./store.ts";
import { WORKER_NAME } from "./wire.ts";

/** This very module, as the bundle ships it. */
const SCRIPT = "runtime/tabwright.js";

export interface OpenOptions extends LoadOptions {
  /** False runs the model in the page's own thread, which then stands still at every step. */
  readonly worker?: boolean;
}

/**
 * Loads the bundle whose manifest is at `manifestUrl`, in a worker of its own unless that
 * cannot be, which `info.notes` then tells. Every byte is verified before a session exists;
 * with the network off the stored copy is used. The browser is asked to keep what is stored.
 *
 * @throws TabwrightError, typed by its `code`; nothing half-made is left behind, but
 *   verified chunks stay for the next attempt.
 */
export async function load(manifestUrl: string, options: OpenOptions = {}): Promise<Model> {
  const { worker: wanted = true, ...asked } = options;
  const url = new URL(manifestUrl, location.href).href;
  const notes: string[] = [];
  const calls = wanted ? await startWorker(url, asked, notes) : undefined;
  const model = calls ? await loadThere(calls, url, asked) : await loadHere(url, asked, notes);
  // Only a page may ask; it may be declined, and then disk pressure can evict the weights.
  if (asked.store !== "none") await navigator.storage?.persist?.().catch(() => undefined);
  return model;
}

async function loadThere(calls: Calls, url: string, options: LoadOptions): Promise<Model> {
  const { signal, onProgress, ...plain } = options;
  try {
    const info = await calls.call<LoadedFacts>("load", [url, plain], signal, onProgress);
    return new RemoteModel(info, calls);
  } catch (error) {
    calls.end();
    throw error;
  }
}

/** A worker made of verified bytes, so that one from another origin can be used as well. */
async function startWorker(
  url: string,
  options: LoadOptions,
  notes: string[],
): Promise<Calls | undefined> {
  const transport = browserTransport(options.signal);
  try {
    const store = await openStore(options.store ?? "opfs", []);
    const { manifest } = await readManifest(url, store, transport);
    const file = manifest.files.find(({ path }) => path === SCRIPT);
    if (!file) throw new TabwrightError("manifest-invalid", `${url}: ${SCRIPT} is used but not listed`);
    const bytes = await fetchVerified(file, url, manifest.chunk_size, transport);
    // Never revoked: the worker may read it at any time before it runs.
    const script = URL.createObjectURL(new Blob([bytes], { type: "text/javascript" }));
    return new Calls(new Worker(script, { type: "module", name: WORKER_NAME }));
  } catch (error) {
    if (!(error instanceof TabwrightError && error.code === "network")) throw error;
    notes.push("runs in the page's own thread: the worker's script is out of reach with the network off");
    return undefined;
  }
}
