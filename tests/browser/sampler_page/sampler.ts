/** Draws many tokens from the same logits, on the GPU and on the CPU. */
import { GpuSampler } from "../../../browser_harness/page/runtime/gpu_sampler.ts";
import { checkSampling, makeSampler, type SamplingOptions } from "../../../browser_harness/page/runtime/sampling.ts";

const [MAP_READ, COPY_SRC, COPY_DST, STORAGE] = [1, 4, 8, 128];

interface Draws {
  readonly gpu: number[];
  readonly cpu: number[];
}

async function draw(
  logits: readonly number[],
  prompt: readonly number[],
  options: SamplingOptions,
  count: number,
  allowed: readonly number[],
): Promise<Draws> {
  const adapter = await navigator.gpu.requestAdapter();
  const device = (await adapter?.requestDevice()) as GPUDevice;
  const row = Float32Array.from(logits);
  const source = device.createBuffer({ size: row.byteLength, usage: STORAGE | COPY_DST });
  const next = device.createBuffer({ size: 8, usage: STORAGE | COPY_SRC });
  const results = device.createBuffer({ size: 8 * count, usage: MAP_READ | COPY_DST });
  device.queue.writeBuffer(source, 0, row);

  const sampler = new GpuSampler(device, row.length, source, next);
  sampler.start(checkSampling(options), prompt);
  const bits = new Int32Array(Math.ceil(row.length / 32));
  for (const token of allowed) bits[token >> 5] = (bits[token >> 5] as number) | (1 << (token & 31));
  if (allowed.length < row.length) sampler.allow(bits);
  const encoder = device.createCommandEncoder();
  for (let index = 0; index < count; index++) {
    sampler.encode(encoder);
    encoder.copyBufferToBuffer(next, 0, results, 8 * index, 8);
  }
  device.queue.submit([encoder.finish()]);
  await results.mapAsync(1);
  const gpu = Array.from(new BigInt64Array(results.getMappedRange()), Number);
  sampler.dispose();
  device.destroy();

  const sample = makeSampler(options, prompt);
  return { gpu, cpu: Array.from({ length: count }, () => sample(row, bits)) };
}

Object.assign(globalThis, { sampler: { draw } });
