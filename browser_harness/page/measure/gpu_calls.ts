import type { GpuCalls } from "./schema.ts";

type Mutable<T> = { -readonly [Key in keyof T]: T[Key] };

/** Counts what the page asks of the GPU, from hooks on the methods that ask. */
export function countGpuCalls(): GpuCalls {
  const calls: Mutable<GpuCalls> = {
    dispatches: 0,
    submits: 0,
    bind_groups: 0,
    buffers: 0,
    buffer_bytes: 0,
    read_bytes: 0,
  };
  if (!("GPUDevice" in globalThis)) return calls;
  before(GPUComputePassEncoder.prototype, "dispatchWorkgroups", () => calls.dispatches++);
  before(GPUComputePassEncoder.prototype, "dispatchWorkgroupsIndirect", () => calls.dispatches++);
  before(GPUQueue.prototype, "submit", () => calls.submits++);
  before(GPUDevice.prototype, "createBindGroup", () => calls.bind_groups++);
  before(GPUDevice.prototype, "createBuffer", (_, descriptor) => {
    calls.buffers++;
    calls.buffer_bytes += descriptor.size;
  });
  before(GPUBuffer.prototype, "mapAsync", (buffer, mode, offset = 0, size = buffer.size - offset) => {
    if (mode === 1) calls.read_bytes += size;
  });
  return calls;
}

type Given<T, K extends keyof T> = T[K] extends (...given: infer A) => unknown ? A : never;

/** Has `note` hear of every call of `prototype`'s method `name`. */
function before<T extends object, K extends keyof T>(
  prototype: T,
  name: K,
  note: (self: T, ...given: Given<T, K>) => void,
): void {
  const method = prototype[name] as (...given: Given<T, K>) => unknown;
  prototype[name] = function (this: T, ...given: Given<T, K>) {
    note(this, ...given);
    return method.apply(this, given);
  } as T[K];
}
