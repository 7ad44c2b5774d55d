// wllama in its documented configuration: its own WASM build, no download, greedy.
import { Wllama } from "./node_modules/@wllama/wllama/esm/index.js";

let wllama;

globalThis.peer = {
  async load(threads) {
    const start = performance.now();
    const wasm = new URL("./node_modules/@wllama/wllama/esm/wasm/wllama.wasm", import.meta.url);
    wllama = new Wllama(
      { default: wasm.href },
      { allowOffline: true, suppressNativeLog: true },
    );
    wllama.setCompat(null);
    const model = await (await fetch("/model/model.gguf")).blob();
    await wllama.loadModel([model], { n_threads: threads, n_ctx: 1024, n_gpu_layers: 0 });
    return { ms: performance.now() - start, threads: wllama.getNumThreads() };
  },

  // Times of each token since the start, by this page's clock, and by wllama's own.
  async generate(prompt, tokens) {
    const start = performance.now();
    const at = [];
    let own = null;
    await wllama.createCompletion({
      prompt,
      max_tokens: tokens,
      temperature: 0,
      stream: true,
      cache_prompt: false,
      onData(chunk) {
        if (chunk.choices?.[0]?.text) at.push(performance.now() - start);
        own = chunk.timings ?? own;
      },
    });
    return { at_ms: at, own };
  },
};
