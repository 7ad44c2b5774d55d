import type { Buffer } from "./hooks.ts";
import type { GpuBuffers } from "./schema.ts";

/** Buffers of the same label, usage and size as one row, the largest rows first. */
export function groupBuffers(buffers: Iterable<Buffer>): GpuBuffers[] {
  const groups = new Map<string, Buffer & { count: number }>();
  for (const { label, usage, size } of buffers) {
    const key = `${size} ${usage} ${label}`;
    const group = groups.get(key) ?? { label, usage, size, count: 0 };
    group.count++;
    groups.set(key, group);
  }
  return [...groups.values()].sort((a, b) => b.size * b.count - a.size * a.count);
}
