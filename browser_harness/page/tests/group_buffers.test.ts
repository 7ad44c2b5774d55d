import { expect, test } from "vitest";

import { groupBuffers } from "../measure/group_buffers.ts";

test("buffers of one label and size are one row, the largest first", () => {
  const buffers = [
    { label: "", size: 16 },
    { label: "cache", size: 16 },
    { label: "", size: 100 },
    { label: "", size: 16 },
    { label: "cache", size: 160 },
  ];
  expect(groupBuffers(buffers)).toEqual([
    { label: "cache", size: 160, count: 1 },
    { label: "", size: 100, count: 1 },
    { label: "", size: 16, count: 2 },
    { label: "cache", size: 16, count: 1 },
  ]);
});
