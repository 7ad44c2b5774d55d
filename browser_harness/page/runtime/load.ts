import type { LoadedFacts, Model } from "./api.ts";
import { browserTransport } from "./connection.ts";
import { requestAdapter, requestGpu } from "./device.ts";
import { TabwrightError, throwIfAborted } from "./errors.ts";
import {
  findTarget,
  type Manifest,
  neededFiles,
  ORT_MODULE,
  ORT_WASM,
  PAGE_FILES,
  shardsOf,
  type TargetEntry,
} from "./manifest.ts";
import { LocalModel } from "./model.ts";
import { Obtainer, type Progress } from "./obtain.ts";
import { type LoopOptions, type OpenLoop, openLoop } from "./open_loop.ts";
import { ortVersion, prepareOrt, requireJspi, usableThreads } from "./ort.ts";
import type { LoadTimings } from "./schema.ts";
import { keepManifest, readManifest, verifyPageFiles } from "./served.ts";
import { SteadyBlob } from "./steady.ts";
import { openStore } from "./store.ts";
import { sweep } from "./sweep.ts";
import { chooseTarget } from "./target.ts";
import { Tokenizer } from "./tokenizer.ts";

export interface LoadOptions extends LoopOptions {
  /** Default: what this device runs best; `Model.info.because` tells why. */
  readonly target?: string | undefined;
  /** CPU threads; more than one needs a cross-origin isolated page. */
  readonly threads?: number | undefined;
  /** Which of the adapter's features the GPU device is asked for. */
  readonly deviceFeatures?: "needed" | "all";
  /** `none` keeps nothing for the next visit. */
  readonly store?: "opfs" | "none";
  readonly signal?: AbortSignal | undefined;
  readonly onProgress?: (progress: Progress) => void;
}

/**
 * Loads the bundle whose manifest is at `manifestUrl` in this thread. Every byte is
 * verified before a session exists; with the network off the stored copy is used.
 *
 * @param notes receives a sentence for whatever could not be done as asked; they end in `info`.
 * @throws TabwrightError, typed by its `code`; nothing half-made is left behind, but
 *   verified chunks stay for the next attempt.
 */
export async function loadHere(
  manifestUrl: string,
  options: LoadOptions = {},
  notes: string[] = [],
): Promise<Model> {
  const start = performance.now();
  const onProgress = options.onProgress ?? (() => undefined);
  requireJspi();
  if (!isSecureContext) {
    throw new TabwrightError("insecure-context", "digests need a secure page: https, or http on localhost");
  }

  const url = new URL(manifestUrl, location.href).href;
  const transport = browserTransport(options.signal);
  const store = await openStore(options.store ?? "opfs", notes);
  onProgress({ phase: "manifest", done: 0, total: 0, file: url });
  const { bytes, manifest, offline } = await readManifest(url, store, transport);
  const choice = await choose(manifest, options.target);
  const entry = findTarget(manifest, choice.target);

  const gpu =
    entry.execution_provider === "webgpu"
      ? await requestGpu(await requestAdapter(), entry, options.deviceFeatures ?? "needed")
      : undefined;
  let opened: OpenLoop | undefined;
  const release = async () => {
    await opened?.session.release();
    gpu?.destroy();
  };
  try {
    const needed = neededFiles(manifest, entry);
    const obtainer = new Obtainer({
      base: new URL(".", url).href,
      chunkSize: manifest.chunk_size,
      store,
      transport,
      notes,
      onProgress,
    });
    const pageFiles = needed.filter((file) => PAGE_FILES.has(file.path));
    await verifyPageFiles(pageFiles, url, manifest.chunk_size, transport, offline ? notes : undefined);
    const { loop, kind, tokenizer, threads, sessionStart, changed } = await store.whileUsing(async () => {
      const files = await obtainer.obtain(needed.filter((file) => !PAGE_FILES.has(file.path)));
      const changed = obtainer.lasting && !offline && (await keepManifest(store, url, bytes, notes));
      throwIfAborted(options.signal);

      const size = needed.reduce((sum, file) => sum + file.size, 0);
      onProgress({ phase: "session", done: size, total: size, file: entry.graph });
      const tokenizer = await openTokenizer(manifest, files);
      const sessionStart = performance.now();
      const wanted = usableThreads(options.threads, gpu !== undefined, notes);
      const threads = prepareOrt(blob(files, ORT_MODULE), blob(files, ORT_WASM), wanted, notes);
      const shards = shardBlobs(manifest, entry, files);
      const file = (path: string) => blob(files, path);
      const parts = { entry, facts: manifest.model, gpu, file, shards };
      opened = await openLoop(parts, options, notes);
      return { ...opened, tokenizer, threads, sessionStart, changed };
    });
    const end = performance.now();
    if (changed) await sweep(store, notes);
    const timings: LoadTimings = {
      fetch_ms: obtainer.fetchClock.ms,
      verify_ms: obtainer.verifyClock.ms,
      store_ms: obtainer.storeClock.ms,
      session_ms: end - sessionStart,
      total_ms: end - start,
      bytes_fetched: obtainer.bytesFetched,
      bytes_from_store: obtainer.bytesFromStore,
    };
    const info: LoadedFacts = {
      ...choice,
      facts: manifest.model,
      timings,
      adapter: gpu?.adapter,
      software: gpu?.software ?? false,
      loop: kind,
      threads,
      offline,
      onnxruntimeWeb: ortVersion(),
      notes,
    };
    return new LocalModel(info, tokenizer, loop, release);
  } catch (error) {
    await release();
    throw error;
  }
}

async function choose(
  manifest: Manifest,
  wanted: string | undefined,
): Promise<{ target: string; because: string | undefined }> {
  if (wanted !== undefined) return { target: wanted, because: undefined };
  const adapter = await requestAdapter().catch((error: unknown) => {
    if (error instanceof TabwrightError) return undefined;
    throw error;
  });
  return chooseTarget(manifest, adapter);
}

async function openTokenizer(manifest: Manifest, files: ReadonlyMap<string, Blob>): Promise<Tokenizer> {
  const { tokenizer, tokenizer_config, chat_template } = manifest;
  return new Tokenizer(
    await blob(files, tokenizer).text(),
    await blob(files, tokenizer_config).text(),
    chat_template === undefined ? undefined : await blob(files, chat_template).text(),
  );
}

/** A target's shards by the location that its graph names, which is in the same folder. */
function shardBlobs(
  manifest: Manifest,
  entry: TargetEntry,
  files: ReadonlyMap<string, Blob>,
): Map<string, Blob> {
  return new Map(
    shardsOf(manifest, entry).map((path) => {
      const location = path.slice(path.lastIndexOf("/") + 1);
      return [location, new SteadyBlob([blob(files, path)])];
    }),
  );
}

function blob(files: ReadonlyMap<string, Blob>, path: string): Blob {
  const found = files.get(path);
  if (!found) throw new TabwrightError("manifest-invalid", `${path} is used but is a page file`);
  return found;
}
