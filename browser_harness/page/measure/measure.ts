/** What the harness calls, as `window.tabwrightMeasure`: JSON in, JSON out (manifests/page.py). */
import type * as Runtime from "../runtime/index.ts";
import { copyOnGpu, readInWasm } from "./bandwidth.ts";
import { toBase64 } from "./base64.ts";
import { chancesOf, type Wanted } from "./chances.ts";
import { GpuTimer } from "./gpu_timer.ts";
import { groupBuffers } from "./group_buffers.ts";
import { installHooks } from "./hooks.ts";
import { loadResult } from "./result.ts";
import type {
  Bandwidth,
  GenerateResult,
  GpuBuffers,
  GpuCalls,
  GpuPasses,
  LoadRequest,
  LoadResult,
  LogitsBlock,
  PageMemory,
  TokenChance,
} from "./schema.ts";
import { generateUntil } from "./until.ts";

/** Only an error's message crosses to the harness, so the code is in it too. */
function failure(code: string, message: string, cause?: unknown): Error {
  return Object.assign(new Error(`${code}: ${message}`, { cause }), { code });
}

const meter = installHooks();
const gpuTimer = new GpuTimer();
// The very module that the bundle ships, and only after the hooks are in place.
const runtimeUrl = "/bundle/runtime/tabwright.js";
const runtime: Promise<typeof Runtime> = import(runtimeUrl).catch((error: unknown) => {
  throw failure("runtime-broken", `${runtimeUrl} does not run: ${String(error)}`);
});
runtime.catch(() => undefined); // `load` reports it.

let model: Runtime.Model | undefined;
let scoring: AsyncGenerator<Runtime.ScoredBlock, void> | undefined;

function loaded(): Runtime.Model {
  if (!model) throw failure("disposed", "no model is loaded");
  return model;
}

/** What was asked of the GPU after `before`, where there is one. */
function since(before: GpuCalls): { calls?: GpuCalls } {
  if (meter.gpuCalls.dispatches === 0) return {};
  const { gpuCalls } = meter;
  const names = Object.keys(before) as (keyof GpuCalls)[];
  return {
    calls: Object.fromEntries(names.map((name) => [name, gpuCalls[name] - before[name]])) as unknown as GpuCalls,
  };
}

/** A model runs one call at a time: a scoring that was not read to its end is dropped. */
async function endScoring(): Promise<void> {
  await scoring?.return();
  scoring = undefined;
}

const methods = {
  async load(request: LoadRequest): Promise<LoadResult> {
    const { load } = await runtime;
    model = await load(request.manifest_url, {
      // The hooks see this thread only.
      worker: false,
      target: request.target,
      threads: request.threads,
      deviceFeatures: request.device_features,
      loop: request.loop,
      selfCheck: request.self_check,
    });
    return loadResult(model.info);
  },

  async tokenize(texts: readonly string[]): Promise<number[][]> {
    return await Promise.all(texts.map((text) => loaded().tokenize(text)));
  },

  async detokenize(ids: readonly (readonly number[])[]): Promise<string[]> {
    return await Promise.all(ids.map((each) => loaded().detokenize(each)));
  },

  async chat(messages: readonly Runtime.Message[]): Promise<Runtime.RenderedChat> {
    return await loaded().render(messages);
  },

  async generate(
    prompt: readonly number[],
    maxNewTokens: number,
    ignoreEos: boolean,
    withinMs = Infinity,
  ): Promise<GenerateResult> {
    await endScoring();
    const tokens: number[] = [];
    const at_ms: number[] = [];
    const before = { ...meter.gpuCalls };
    const options = { maxNewTokens, ...(ignoreEos ? { stopTokens: [] } : {}) };
    for await (const { token, atMs } of loaded().generate(prompt, options)) {
      tokens.push(token);
      at_ms.push(atMs);
      if (atMs >= withinMs) break;
    }
    const text = await loaded().detokenize(tokens);
    return { tokens, text, at_ms, ...since(before) };
  },

  async generateUntil(
    prompt: readonly number[],
    maxNewTokens: number,
    stops: readonly string[],
    stopTokens: readonly number[],
  ): Promise<GenerateResult> {
    await endScoring();
    return await generateUntil(loaded(), prompt, maxNewTokens, stops, stopTokens);
  },

  async logprobs(tokens: readonly number[], wanted: readonly Wanted[]): Promise<TokenChance[]> {
    await endScoring();
    return await chancesOf(loaded().score(tokens), wanted);
  },

  /** Begins to score `tokens`. */
  async scoreStart(tokens: readonly number[], chunk: number): Promise<void> {
    await endScoring();
    scoring = loaded().score(tokens, { chunk });
  },

  /** The next block of logits, or null after the last. */
  async scoreNext(): Promise<LogitsBlock | null> {
    const next = await scoring?.next();
    if (!next || next.done) return null;
    const { start, rows, vocabulary, logits } = next.value;
    return { start, rows, vocabulary, data: toBase64(logits) };
  },

  async memory(): Promise<PageMemory> {
    // Chromium's own, absent from the standard library's types.
    const { memory } = performance as { memory?: { usedJSHeapSize: number } };
    return {
      ...(memory ? { js_heap_bytes: memory.usedJSHeapSize } : {}),
      wasm_heap_bytes: meter.wasmHeapBytes,
      gpu_bytes: meter.gpuBytes,
      gpu_peak_bytes: meter.gpuPeakBytes,
    };
  },

  /** Times the compute passes of devices that are asked for from now on. */
  async timeGpu(): Promise<void> {
    gpuTimer.start();
  },

  async gpuPasses(): Promise<GpuPasses> {
    return await gpuTimer.take();
  },

  async gpuBuffers(): Promise<GpuBuffers[]> {
    return groupBuffers(meter.gpuBuffers);
  },

  async gpuCalls(): Promise<GpuCalls> {
    return { ...meter.gpuCalls };
  },

  /** How fast memory moves where the model would run; to be asked while none is loaded. */
  async bandwidth(onGpu: boolean, size: number, threads: number): Promise<Bandwidth> {
    return await (onGpu ? copyOnGpu(size) : readInWasm(size, threads));
  },

  /** Deletes everything that pages of this origin store. */
  async forget(): Promise<void> {
    const root = await navigator.storage.getDirectory();
    for await (const name of root.keys()) await root.removeEntry(name, { recursive: true });
  },

  async dispose(): Promise<void> {
    await endScoring();
    await model?.dispose();
    model = undefined;
  },
};

function typed<A extends unknown[], R>(method: (...given: A) => Promise<R>): (...given: A) => Promise<R> {
  return async (...given) => {
    try {
      return await method(...given);
    } catch (error) {
      const { TabwrightError } = await runtime;
      throw error instanceof TabwrightError ? failure(error.code, error.message, error) : error;
    }
  };
}

const api = Object.fromEntries(
  Object.entries(methods).map(([name, method]) => [name, typed(method as (...given: unknown[]) => Promise<unknown>)]),
);
Object.assign(globalThis, { tabwrightMeasure: api });
