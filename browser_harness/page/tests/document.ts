import { bytesOf, describeFile, hex } from "./server.ts";

const ORT = ["runtime/ort-wasm-simd-threaded.jspi.mjs", "runtime/ort-wasm-simd-threaded.jspi.wasm"];

function target(graph: string, weights: string) {
  return {
    graph,
    weights,
    execution_provider: "wasm",
    activation_dtype: "float32",
    states: [{ input: "past", output: "present", dtype: "float32", shape: ["batch_size", 2, "past_sequence_length"] }],
    features: [],
    limits: {},
    session_config: {},
  };
}

/** A bundle of two targets, each with its own weights. */
export function document(): Record<string, unknown> {
  const paths = ["tokenizer.json", "tokenizer_config.json", ...ORT, "onnx/a.onnx", "onnx/a_data", "onnx/b.onnx", "onnx/b_data"];
  return {
    format: "tabwright-bundle",
    version: 1,
    model: { name: "ünïcode ☃" },
    chunk_size: 8,
    files: paths.map((path) => describeFile(path, bytesOf(20), 8)),
    targets: { a: target("onnx/a.onnx", "wa"), b: target("onnx/b.onnx", "wb") },
    weights: { wa: { shards: ["onnx/a_data"] }, wb: { shards: ["onnx/b_data"] } },
    tokenizer: "tokenizer.json",
    tokenizer_config: "tokenizer_config.json",
    tools: {},
  };
}

/** As Python seals: the digest of the text with a zero seal, put in its place. */
export function seal(manifest: Record<string, unknown>): Uint8Array<ArrayBuffer> {
  const blank = JSON.stringify({ ...manifest, seal: "0".repeat(64) }, null, 1);
  return new TextEncoder().encode(blank.replace("0".repeat(64), hex(new TextEncoder().encode(blank))));
}
