import { countGpuCalls } from "./gpu_calls.ts";
import type { GpuCalls } from "./schema.ts";

/** Live and highest bytes in GPU buffers, and the WASM heaps, from hooks on the constructors. */
export interface MemoryMeter {
  readonly gpuBytes: number;
  readonly gpuPeakBytes: number;
  readonly wasmHeapBytes: number;
  readonly gpuCalls: GpuCalls;
}

/** Must run before any module that makes buffers or memories is imported. */
export function installHooks(): MemoryMeter {
  const gpu = "GPUDevice" in globalThis ? hookBuffers() : { live: 0, peak: 0 };
  const memories = hookMemories();
  const gpuCalls = countGpuCalls();
  return {
    gpuCalls,
    get gpuBytes() {
      return gpu.live;
    },
    get gpuPeakBytes() {
      return gpu.peak;
    },
    get wasmHeapBytes() {
      return memories.reduce((sum, memory) => sum + memory.buffer.byteLength, 0);
    },
  };
}

function hookBuffers(): { live: number; peak: number } {
  const count = { live: 0, peak: 0 };
  const buffersOf = new WeakMap<GPUDevice, Map<GPUBuffer, number>>();
  const ownerOf = new WeakMap<GPUBuffer, GPUDevice>();
  const { createBuffer, destroy: destroyDevice } = GPUDevice.prototype;
  const { destroy: destroyBuffer } = GPUBuffer.prototype;

  GPUDevice.prototype.createBuffer = function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    const buffers = buffersOf.get(this) ?? new Map<GPUBuffer, number>();
    buffersOf.set(this, buffers.set(buffer, descriptor.size));
    ownerOf.set(buffer, this);
    count.live += descriptor.size;
    count.peak = Math.max(count.peak, count.live);
    return buffer;
  };
  GPUBuffer.prototype.destroy = function () {
    const owner = ownerOf.get(this);
    const buffers = owner && buffersOf.get(owner);
    count.live -= buffers?.get(this) ?? 0;
    buffers?.delete(this); // A second destroy is allowed and frees nothing.
    return destroyBuffer.call(this);
  };
  GPUDevice.prototype.destroy = function () {
    for (const size of buffersOf.get(this)?.values() ?? []) count.live -= size;
    buffersOf.delete(this);
    return destroyDevice.call(this);
  };
  return count;
}

function hookMemories(): WebAssembly.Memory[] {
  const memories: WebAssembly.Memory[] = [];
  const Memory = WebAssembly.Memory;
  // ORT's glue makes the memory itself and imports it, so the constructor sees it.
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor);
      memories.push(this);
    }
  };
  return memories;
}
