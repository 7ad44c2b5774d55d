import { MAP_READ_MODE, USAGE } from "../runtime/gpu_usage.ts";
import type { GpuPasses } from "./schema.ts";

/** WebGPU's largest query set; a pass takes two. */
const QUERIES = 4096;
/** As in the WebGPU specification; the standard library has no such names. */
const QUERY_RESOLVE = 0x0200;

interface Timed {
  readonly queries: GPUQuerySet;
  used: number;
  /** Whether a pass came that could not be timed any more. */
  full: boolean;
}

/** How long compute passes keep the GPU busy, by timestamps around each. */
export class GpuTimer {
  readonly #devices = new Map<GPUDevice, Timed>();

  /**
   * From now on devices are asked for with `timestamp-query` where the adapter has it, and each
   * of their compute passes is timed, 2,048 at the most until they are {@link take}n.
   */
  start(): void {
    const devices = this.#devices;
    const deviceOf = new WeakMap<GPUCommandEncoder, GPUDevice>();
    const { requestDevice } = GPUAdapter.prototype;
    const { createCommandEncoder } = GPUDevice.prototype;
    const { beginComputePass } = GPUCommandEncoder.prototype;

    GPUAdapter.prototype.requestDevice = async function (descriptor = {}) {
      if (!this.features.has("timestamp-query")) return await requestDevice.call(this, descriptor);
      const features = new Set(descriptor.requiredFeatures).add("timestamp-query");
      const device = await requestDevice.call(this, { ...descriptor, requiredFeatures: [...features] });
      devices.set(device, { queries: device.createQuerySet({ type: "timestamp", count: QUERIES }), used: 0, full: false });
      return device;
    };
    GPUDevice.prototype.createCommandEncoder = function (descriptor) {
      const encoder = createCommandEncoder.call(this, descriptor);
      deviceOf.set(encoder, this);
      return encoder;
    };
    GPUCommandEncoder.prototype.beginComputePass = function (descriptor = {}) {
      const device = deviceOf.get(this);
      const timed = device && devices.get(device);
      if (!timed || descriptor.timestampWrites) return beginComputePass.call(this, descriptor);
      timed.full ||= timed.used + 2 > QUERIES;
      if (timed.full) return beginComputePass.call(this, descriptor);
      const timestampWrites = {
        querySet: timed.queries,
        beginningOfPassWriteIndex: timed.used,
        endOfPassWriteIndex: timed.used + 1,
      };
      timed.used += 2;
      return beginComputePass.call(this, { ...descriptor, timestampWrites });
    };
  }

  /** The passes since the last call, and what they took together; `full` when some were not timed. */
  async take(): Promise<GpuPasses> {
    const found = { passes: 0, ms: 0, full: false };
    for (const [device, timed] of this.#devices) {
      if (timed.used === 0) continue;
      const size = 8 * timed.used;
      const resolved = device.createBuffer({ size, usage: QUERY_RESOLVE | USAGE.COPY_SRC });
      const readable = device.createBuffer({ size, usage: USAGE.MAP_READ | USAGE.COPY_DST });
      const encoder = device.createCommandEncoder();
      encoder.resolveQuerySet(timed.queries, 0, timed.used, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, readable, 0, size);
      device.queue.submit([encoder.finish()]);
      await readable.mapAsync(MAP_READ_MODE);
      const times = new BigUint64Array(readable.getMappedRange());
      for (let i = 0; i < timed.used; i += 2) {
        found.ms += Number((times[i + 1] as bigint) - (times[i] as bigint)) / 1e6;
      }
      found.passes += timed.used / 2;
      found.full ||= timed.full;
      timed.used = 0;
      timed.full = false;
      resolved.destroy();
      readable.destroy();
    }
    return found;
  }
}
