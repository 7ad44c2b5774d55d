// transformers.js as its documentation has it: a model's folder, a device and a dtype, offline.
import {
  AutoModelForCausalLM,
  AutoTokenizer,
  env,
  Tensor,
} from "./node_modules/@huggingface/transformers/dist/transformers.min.js";

const ort = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
env.allowRemoteModels = false;
env.allowLocalModels = true;
env.localModelPath = "/";
env.useBrowserCache = true;
env.backends.onnx.wasm.wasmPaths = ort;

let model;
let tokenizer;

const row = (ids) => new Tensor("int64", BigInt64Array.from(ids, BigInt), [1, ids.length]);

globalThis.peer = {
  // `folder` is below the site's root; `options` are from_pretrained's own.
  async load(folder, options, threads) {
    const start = performance.now();
    if (threads) env.backends.onnx.wasm.numThreads = threads;
    [tokenizer, model] = await Promise.all([
      AutoTokenizer.from_pretrained(folder),
      AutoModelForCausalLM.from_pretrained(folder, options),
    ]);
    return { ms: performance.now() - start, threads: env.backends.onnx.wasm.numThreads };
  },

  tokenize(texts) {
    return texts.map((text) => tokenizer.encode(text));
  },

  chat(messages) {
    return tokenizer.apply_chat_template(messages, { tokenize: false, add_generation_prompt: true });
  },

  // Greedy tokens, and when each of them was there.
  async generate(ids, count) {
    const at_ms = [];
    const start = performance.now();
    const streamer = { put: () => at_ms.push(performance.now() - start), end: () => undefined };
    const output = await model.generate({
      inputs: row(ids),
      attention_mask: row(ids.map(() => 1)),
      max_new_tokens: count,
      min_new_tokens: count,
      do_sample: false,
      streamer,
    });
    // The streamer is given the prompt first.
    return { tokens: Array.from(output.data.slice(ids.length), Number), at_ms: at_ms.slice(1) };
  },

  // The sum of -ln p of every token of `ids` after the first.
  async score(ids) {
    const { logits } = await model({ input_ids: row(ids), attention_mask: row(ids.map(() => 1)) });
    const width = logits.dims.at(-1);
    let total = 0;
    for (let at = 0; at + 1 < ids.length; at++) {
      const values = logits.data.subarray(at * width, (at + 1) * width);
      const most = values.reduce((a, b) => Math.max(a, b));
      const sum = values.reduce((a, b) => a + Math.exp(b - most), 0);
      total -= values[ids[at + 1]] - most - Math.log(sum);
    }
    return total;
  },

  dispose: () => model.dispose(),
};
