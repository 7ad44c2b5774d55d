"use strict";
// A language of eight tokens in which each token is followed by the next one: small
// enough that a test knows every answer without running anything.
const VOCABULARY = 8;
const next = (token) => (token + 1) % VOCABULARY;
const logits = (token) =>
  Float32Array.from({ length: VOCABULARY }, (_, id) => (id === next(token) ? 4 : id / VOCABULARY));
const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const base64 = (floats) => btoa(String.fromCharCode(...new Uint8Array(floats.buffer)));

let scored = null;
let bend = 0;
let pace = () => 2;
let leaked = 0;

const behaviours = {
  async "webgpu-loops"() {
    for (;;);
  },
  async "wasm-refuses"() {
    throw new Error("chunk-corrupt: onnx/model_q4.onnx_data: chunk 3 is not what it was");
  },
  async "wasm-untyped"() {
    null.nothing;
  },
  async "wasm-sleeps"() {
    await pause(600_000);
  },
  async "wasm-bent"() {
    bend = 0.5;
  },
  async "wasm-slow"() {
    pace = () => 2.2;
  },
  // As a loop does that copies its cache.
  async "wasm-copies"() {
    pace = (position) => 2 + position / 1000;
  },
  // As one does whose kernel changes at a length.
  async "wasm-steps"() {
    pace = (position) => (position < 300 ? 2 : 3);
  },
  async "wasm-clings"() {
    localStorage.setItem("clings", "yes");
  },
  async "wasm-leaks"() {
    leaked += 1000;
  },
  async "wasm-noisy"() {
    console.error("a kernel complained");
    console.warn("not an error");
  },
};

window.tabwrightMeasure = {
  async load(request) {
    await behaviours[request.target]?.();
    const stored = localStorage.getItem("stored") === "yes";
    const start = performance.now();
    if (!stored) await (await fetch(new URL("onnx/model_q4.onnx_data", request.manifest_url))).arrayBuffer();
    const fetched = performance.now() - start;
    localStorage.setItem("stored", "yes");
    return {
      timings: {
        fetch_ms: fetched, verify_ms: 1, store_ms: 1, session_ms: 1, total_ms: 4,
        bytes_fetched: stored ? 0 : 1000, bytes_from_store: stored ? 1000 : 0,
      },
      adapter: null,
      software: request.target === "webgpu-emulated",
      notes: request.target === "webgpu-emulated" ? ["the page's own note"] : [],
      threads: request.threads,
      cross_origin_isolated: crossOriginIsolated,
      jspi: true,
      onnxruntime_web: "0.0.0",
    };
  },
  async tokenize(texts) {
    return texts.map((text) => [...text].map((letter) => letter.codePointAt(0) % VOCABULARY));
  },
  async detokenize(lists) {
    return lists.map((ids) => ids.join(" "));
  },
  async chat(messages) {
    const rendered = messages.map(({ role, content }) => `${role}:${content}\n`).join("");
    return { rendered, ids: [...rendered].map((letter) => letter.codePointAt(0) % VOCABULARY) };
  },
  async generate(prompt, maxNewTokens, _ignoreEos, withinMs = Infinity) {
    const most = Math.min(maxNewTokens, Math.max(1, Math.floor(withinMs / 2)));
    const tokens = [];
    const at_ms = [];
    for (let last = prompt.at(-1), at = 10; tokens.length < most; at += pace(prompt.length + tokens.length)) {
      tokens.push((last = next(last)));
      at_ms.push(at);
    }
    return { tokens, text: tokens.join(" "), at_ms };
  },
  async scoreStart(tokens, chunk) {
    scored = { tokens, chunk, at: 0 };
  },
  async scoreNext() {
    const { tokens, chunk, at } = scored;
    const rows = tokens.slice(at, at + chunk);
    if (rows.length === 0) return null;
    scored.at += rows.length;
    const values = Float32Array.from(rows.flatMap((token) => [...logits(token)]));
    values[0] += bend;
    return { start: at, rows: rows.length, vocabulary: VOCABULARY, data: base64(values) };
  },
  async memory() {
    return { js_heap_bytes: 11, wasm_heap_bytes: 22, gpu_bytes: 33 + leaked, gpu_peak_bytes: 44 };
  },
  async gpuBuffers() {
    return [{ label: "", usage: 128, size: 33, count: 1 }];
  },
  async bandwidth(onGpu, size, threads) {
    return {
      kind: onGpu ? "webgpu-copy" : "wasm-read", threads, bytes: threads * size,
      clock: "wall", warmup: 1, ms: [9, 4, 4],
    };
  },
  async forget() {
    if (localStorage.getItem("clings")) throw new Error("this page forgets nothing");
    localStorage.clear();
  },
  async dispose() {},
};
