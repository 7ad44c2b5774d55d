import { countGpuCalls } from "./gpu_calls.ts";
import type { GpuCalls } from "./schema.ts";

/** Live and highest bytes in GPU buffers, and the WASM heaps, from hooks on the constructors. */
export interface MemoryMeter {
  readonly gpuBytes: number;
  readonly gpuPeakBytes: number;
  /** Live buffers, by what whoever made them calls them, and by their size. */
  readonly gpuBuffers: Iterable<Buffer>;
  readonly wasmHeapBytes: number;
  readonly gpuCalls: GpuCalls;
}

/** A buffer that lives on the GPU: its label may be empty, its usage is WebGPU's flags. */
export interface Buffer {
  readonly label: string;
  readonly usage: number;
  readonly size: number;
}

/** Must run before any module that makes buffers or memories is imported. */
export function installHooks(): MemoryMeter {
  const gpu = "GPUDevice" in globalThis ? hookBuffers() : { live: 0, peak: 0, all: () => [] };
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
    get gpuBuffers() {
      return gpu.all();
    },
    get wasmHeapBytes() {
      return memories.reduce((sum, memory) => sum + (memory.deref()?.buffer.byteLength ?? 0), 0);
    },
  };
}

interface Buffers {
  peak: number;
  live: number;
  readonly all: () => Iterable<Buffer>;
}

function hookBuffers(): Buffers {
  const held = new Map<GPUDevice, Map<GPUBuffer, Buffer>>();
  const ownerOf = new WeakMap<GPUBuffer, GPUDevice>();
  const count = {
    live: 0,
    peak: 0,
    all: () => [...held.values()].flatMap((buffers) => [...buffers.values()]),
  };
  const { createBuffer, destroy: destroyDevice } = GPUDevice.prototype;
  const { destroy: destroyBuffer } = GPUBuffer.prototype;

  GPUDevice.prototype.createBuffer = function (descriptor) {
    const buffer = createBuffer.call(this, descriptor);
    const { size, usage, label = "" } = descriptor;
    const buffers = held.get(this) ?? new Map<GPUBuffer, Buffer>();
    held.set(this, buffers.set(buffer, { size, usage, label }));
    ownerOf.set(buffer, this);
    count.live += size;
    count.peak = Math.max(count.peak, count.live);
    return buffer;
  };
  GPUBuffer.prototype.destroy = function () {
    const owner = ownerOf.get(this);
    const buffers = owner && held.get(owner);
    count.live -= buffers?.get(this)?.size ?? 0;
    buffers?.delete(this); // A second destroy is allowed and frees nothing.
    return destroyBuffer.call(this);
  };
  GPUDevice.prototype.destroy = function () {
    for (const { size } of held.get(this)?.values() ?? []) count.live -= size;
    held.delete(this);
    return destroyDevice.call(this);
  };
  return count;
}

function hookMemories(): WeakRef<WebAssembly.Memory>[] {
  // Held weakly: a leak check must not leak.
  const memories: WeakRef<WebAssembly.Memory>[] = [];
  const Memory = WebAssembly.Memory;
  // ORT's glue makes the memory itself and imports it, so the constructor sees it.
  WebAssembly.Memory = class extends Memory {
    constructor(descriptor: WebAssembly.MemoryDescriptor) {
      super(descriptor);
      memories.push(new WeakRef(this));
    }
  };
  return memories;
}
