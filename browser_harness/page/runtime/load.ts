import type { LoadedFacts, LoopOptions, Model } from "./api.ts";
import { fileAt, type Files } from "./attempt.ts";
import { openAnyWay } from "./climb.ts";
import { browserTransport } from "./connection.ts";
import { Constrainer, engineStarter } from "./constraint.ts";
import { requestAdapter } from "./device.ts";
import { TabwrightError, throwIfAborted } from "./errors.ts";
import {
  GRAMMAR_ENGINE,
  type Manifest,
  neededFiles,
  ORT_MODULE,
  ORT_WASM,
  PAGE_FILES,
  type TargetEntry,
} from "./manifest.ts";
import { LocalModel } from "./model.ts";
import { Obtainer, type Progress } from "./obtain.ts";
import { cacheMemory } from "./open_loop.ts";
import { ortVersion, requireJspi } from "./ort.ts";
import type { LoadTimings } from "./schema.ts";
import { keepManifest, readManifest, verifyPageFiles } from "./served.ts";
import { openStore } from "./store.ts";
import { sweep } from "./sweep.ts";
import { chooseTarget, chosenBefore, lookAround } from "./target.ts";
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
  /**
   * False trusts the device unseen. By default the first load here compares a few logits with
   * those that the bundle stores, and where they differ goes another way: `info.fallbacks`.
   * With a target of yours it goes no further than that target.
   */
  readonly selfCheck?: boolean;
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

  // Who names a target may want nothing of a GPU: then none is woken.
  const looking = options.target === undefined ? lookAround(requestAdapter()) : undefined;
  const url = new URL(manifestUrl, location.href).href;
  const transport = browserTransport(options.signal);
  const store = await openStore(options.store ?? "opfs", notes);
  onProgress({ phase: "manifest", done: 0, total: 0, file: url });
  const { bytes, manifest, offline } = await readManifest(url, store, transport);
  const means = await looking;
  const chosen = means && chooseTarget(manifest, means);
  const choice = chosen ?? chosenBefore(manifest, options.target as string);

  const obtainer = new Obtainer({
    base: new URL(".", url).href,
    chunkSize: manifest.chunk_size,
    store,
    transport,
    notes,
    onProgress,
  });
  const own = manifest.files.filter(({ path }) => !PAGE_FILES.has(path));
  const pageFiles = manifest.files.filter(({ path }) => PAGE_FILES.has(path));
  // A device that will not do is told before anything else is fetched.
  const verifying = () => verifyPageFiles(pageFiles, url, manifest.chunk_size, transport, offline ? notes : undefined);
  let verified: Promise<void> | undefined;
  let changed = false;
  let tokenizer: Promise<Tokenizer> | undefined;
  const { tokenizer: tokens, tokenizer_config, chat_template } = manifest;
  const early = new Set([ORT_MODULE, ORT_WASM, tokens, tokenizer_config, chat_template]);
  const files = async (entry: TargetEntry, onEarly: (files: Files) => void) => {
    await (verified ??= verifying());
    const needed = new Set(neededFiles(manifest, entry));
    const found = await obtainer.obtain(own.filter((file) => needed.has(file)), {
      first: ({ path }) => early.has(path),
      then: (files) => {
        onEarly(files);
        tokenizer ??= openTokenizer(manifest, files);
        tokenizer.catch(() => undefined); // Awaited with the model.
      },
    });
    if (obtainer.lasting && !offline) changed ||= await keepManifest(store, url, bytes, notes);
    return found;
  };
  const { threads, signal, selfCheck = true } = options;
  const memory = cacheMemory(options);
  const common = { manifest, store, files, threads, selfCheck, memory, signal, onProgress, notes };
  const asked = {
    device_features: options.deviceFeatures ?? "needed",
    loop: options.loop ?? "resident",
    ...(options.prefillChunk === undefined ? {} : { prefill_chunk: options.prefillChunk }),
  } as const;
  const opened = await store.whileUsing(async () => {
    const way = await openAnyWay({ choice, asked }, common);
    try {
      const engine = await engineStarter(way.files.get(GRAMMAR_ENGINE));
      return { ...way, engine, tokenizer: (await tokenizer) as Tokenizer };
    } catch (error) {
      await way.release();
      throw error;
    }
  });
  try {
    throwIfAborted(signal);
    const { way, kind, gpu, loop, check, sessionMs, checkMs } = opened;
    if (changed) await sweep(store, notes);
    const timings: LoadTimings = {
      fetch_ms: obtainer.fetchClock.ms,
      verify_ms: obtainer.verifyClock.ms,
      store_ms: obtainer.storeClock.ms,
      session_ms: sessionMs,
      total_ms: performance.now() - start,
      bytes_fetched: obtainer.bytesFetched,
      bytes_from_store: obtainer.bytesFromStore,
      self_check_ms: checkMs,
    };
    const info: LoadedFacts = {
      target: way.target,
      because: chosen?.because,
      facts: manifest.model,
      timings,
      adapter: gpu?.adapter,
      software: gpu?.software ?? false,
      loop: kind,
      threads: opened.threads,
      offline,
      onnxruntimeWeb: ortVersion(),
      // Every way that was tried has its say, and some say the same.
      notes: [...new Set(notes)],
      choice: chosen,
      fallbacks: opened.fallbacks,
      selfCheck: check,
    };
    const constrainer = new Constrainer(opened.engine, opened.tokenizer.vocabulary, manifest.model.vocab_size);
    return new LocalModel(info, opened.tokenizer, loop, constrainer, opened.release);
  } catch (error) {
    await opened.release();
    throw error;
  }
}

async function openTokenizer(manifest: Manifest, files: Files): Promise<Tokenizer> {
  const { tokenizer, tokenizer_config, chat_template } = manifest;
  return new Tokenizer(
    await fileAt(files, tokenizer).text(),
    await fileAt(files, tokenizer_config).text(),
    chat_template === undefined ? undefined : await fileAt(files, chat_template).text(),
  );
}
