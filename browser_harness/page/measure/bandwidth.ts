import { MAP_READ_MODE, USAGE } from "../runtime/gpu_usage.ts";
import { readModule } from "./read_module.ts";
import type { Bandwidth } from "./schema.ts";

const WARMUP = 2;
const SAMPLES = 8;
/** Copies, or passes over the memory, in one sample: their beginning and end cost little then. */
const REPEATS = 4;

/** As in the WebGPU specification; the standard library has no such names. */
const QUERY_RESOLVE = 0x0200;

const COPY = /* wgsl */ `
@group(0) @binding(0) var<storage, read> source: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> sink: array<vec4<u32>>;
@compute @workgroup_size(256)
fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < arrayLength(&source)) { sink[id.x] = source[id.x]; }
}`;

/** How fast a compute shader copies `size` bytes (at most 128 MiB) on the adapter that pages get. */
export async function copyOnGpu(size: number): Promise<Bandwidth> {
  const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) throw new Error("adapter-missing: WebGPU gives no adapter");
  const timed = adapter.features.has("timestamp-query");
  const device = await adapter.requestDevice({ requiredFeatures: timed ? ["timestamp-query"] : [] });
  try {
    const { STORAGE, COPY_SRC, MAP_READ, COPY_DST } = USAGE;
    const pipeline = await device.createComputePipelineAsync({
      layout: "auto",
      compute: { module: device.createShaderModule({ code: COPY }) },
    });
    const [source, sink] = [0, 1].map(() => device.createBuffer({ size, usage: STORAGE }));
    const bindGroup = device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: [source, sink].map((buffer, binding) => ({ binding, resource: { buffer: buffer as GPUBuffer } })),
    });
    const querySet = timed ? device.createQuerySet({ type: "timestamp", count: 2 }) : undefined;
    const resolved = device.createBuffer({ size: 16, usage: QUERY_RESOLVE | COPY_SRC });
    const readable = device.createBuffer({ size: 16, usage: MAP_READ | COPY_DST });
    const ms: number[] = [];
    for (let sample = 0; sample < WARMUP + SAMPLES; sample++) {
      const encoder = device.createCommandEncoder();
      const pass = encoder.beginComputePass(
        querySet && {
          timestampWrites: { querySet, beginningOfPassWriteIndex: 0, endOfPassWriteIndex: 1 },
        },
      );
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, bindGroup);
      for (let i = 0; i < REPEATS; i++) pass.dispatchWorkgroups(Math.ceil(size / 16 / 256));
      pass.end();
      if (querySet) encoder.resolveQuerySet(querySet, 0, 2, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, readable, 0, 16);
      const start = performance.now();
      device.queue.submit([encoder.finish()]);
      await readable.mapAsync(MAP_READ_MODE);
      const wall = performance.now() - start;
      const [from = 0n, to = 0n] = new BigUint64Array(readable.getMappedRange());
      ms.push(querySet ? Number(to - from) / 1e6 : wall);
      readable.unmap();
    }
    return {
      kind: "webgpu-copy",
      threads: 1,
      bytes: 2 * REPEATS * size,
      clock: timed ? "gpu" : "wall",
      warmup: WARMUP,
      ms,
    };
  } finally {
    device.destroy();
  }
}

const WORKER = `onmessage = async ({ data: { module, size } }) => {
  const { memory, read } = (await WebAssembly.instantiate(module)).instance.exports;
  new Uint8Array(memory.buffer).fill(1); // A page that was never written is one page of zeros.
  onmessage = ({ data: passes }) => {
    for (let pass = 0; pass < passes; pass++) read(size);
    postMessage("done");
  };
  postMessage("ready");
};`;

/** How fast `threads` threads read `size` bytes of WASM memory each. */
export async function readInWasm(size: number, threads: number): Promise<Bandwidth> {
  const url = URL.createObjectURL(new Blob([WORKER], { type: "text/javascript" }));
  const workers = Array.from({ length: threads }, () => new Worker(url));
  const all = async (message: unknown): Promise<void> => {
    const answers = workers.map(
      (worker) =>
        new Promise((resolve, reject) => {
          worker.onmessage = resolve;
          worker.onerror = reject;
        }),
    );
    for (const worker of workers) worker.postMessage(message);
    await Promise.all(answers);
  };
  try {
    await all({ module: readModule(size), size });
    const ms: number[] = [];
    for (let sample = 0; sample < WARMUP + SAMPLES; sample++) {
      const start = performance.now();
      await all(REPEATS);
      ms.push(performance.now() - start);
    }
    return { kind: "wasm-read", threads, bytes: threads * REPEATS * size, clock: "wall", warmup: WARMUP, ms };
  } finally {
    for (const worker of workers) worker.terminate();
    URL.revokeObjectURL(url);
  }
}
