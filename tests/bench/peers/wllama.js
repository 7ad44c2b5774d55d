// wllama in its documented configuration: its own WASM build, its cache, no download, greedy.
import { Wllama } from "./node_modules/@wllama/wllama/esm/index.js";

let wllama;

globalThis.peer = {
  async load(url, options, threads) {
    const start = performance.now();
    const wasm = new URL("./node_modules/@wllama/wllama/esm/wasm/wllama.wasm", import.meta.url);
    wllama = new Wllama(
      { default: wasm.href },
      { allowOffline: true, suppressNativeLog: true },
    );
    wllama.setCompat(null);
    await wllama.loadModelFromUrl(new URL(url, location).href, { ...options, n_threads: threads });
    return { ms: performance.now() - start, threads: wllama.getNumThreads() };
  },

  // Times of each token since the start, by this page's clock, and by wllama's own.
  async generate(prompt, tokens) {
    const start = performance.now();
    const at_ms = [];
    let own = null;
    await wllama.createCompletion({
      prompt,
      max_tokens: tokens,
      temperature: 0,
      stream: true,
      cache_prompt: false,
      onData(chunk) {
        if (chunk.choices?.[0]?.text) at_ms.push(performance.now() - start);
        own = chunk.timings ?? own;
      },
    });
    return { at_ms, own };
  },
};
