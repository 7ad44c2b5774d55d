import { expect, test } from "vitest";

import { groupBuffers } from "../measure/group_buffers.ts";
import { USAGE } from "../runtime/gpu_usage.ts";

test("buffers of one label, usage and size are one row, the largest first", () => {
  const usage = USAGE.STORAGE;
  const buffers = [
    { label: "", usage, size: 16 },
    { label: "cache", usage, size: 16 },
    { label: "", usage, size: 100 },
    { label: "", usage, size: 16 },
    { label: "", usage: USAGE.UNIFORM, size: 16 },
    { label: "cache", usage, size: 160 },
  ];
  expect(groupBuffers(buffers)).toEqual([
    { label: "cache", usage, size: 160, count: 1 },
    { label: "", usage, size: 100, count: 1 },
    { label: "", usage, size: 16, count: 2 },
    { label: "cache", usage, size: 16, count: 1 },
    { label: "", usage: USAGE.UNIFORM, size: 16, count: 1 },
  ]);
});
