import { expect, test } from "vitest";

import { SteadyBlob } from "../runtime/steady.ts";
import { bytesOf } from "./server.ts";

const MIB = 1 << 20;

test("weights are read in pieces of 4 MiB at most, from wherever the reader begins", async () => {
  const bytes = new Uint8Array(10 * MIB);
  for (let at = 0; at < bytes.length; at += 1000) bytes[at] = at % 251;
  const blob = new SteadyBlob([bytes.subarray(0, 3 * MIB), bytes.subarray(3 * MIB)]);
  const part = blob.slice(MIB, 10 * MIB);
  const sizes: number[] = [];
  let at = MIB;
  for await (const piece of part.stream()) {
    sizes.push(piece.length);
    expect(Buffer.compare(piece, bytes.subarray(at, at + piece.length))).toBe(0);
    at += piece.length;
  }
  expect(sizes).toEqual([4 * MIB, 4 * MIB, MIB]);
});

test("nobody gets the reader that hangs", () => {
  expect(() => new SteadyBlob([bytesOf(8)]).stream().getReader({ mode: "byob" })).toThrow(TypeError);
});
