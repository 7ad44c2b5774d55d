import { expect, test, vi } from "vitest";

import { SteadyBlob } from "../runtime/steady.ts";
import { bytesOf } from "./server.ts";

const MIB = 1 << 20;

test("small reads come from large windows, wherever the reader begins", async () => {
  const bytes = new Uint8Array(40 * MIB);
  for (let at = 0; at < bytes.length; at += 1000) bytes[at] = at % 251;
  const blob = new SteadyBlob([bytes.subarray(0, 3 * MIB), bytes.subarray(3 * MIB)]);
  const part = blob.slice(MIB, 40 * MIB);
  const sizes: number[] = [];
  let at = MIB;
  for await (const piece of part.stream()) {
    sizes.push(piece.length);
    expect(Buffer.compare(piece, bytes.subarray(at, at + piece.length))).toBe(0);
    at += piece.length;
  }
  expect(sizes).toEqual([15 * MIB, 16 * MIB, 8 * MIB]);
});

test("a window is read once for all the weights in it, and a slice costs no blob", async () => {
  const bytes = Uint8Array.from({ length: 1000 }, (_, at) => at % 251);
  const read = vi.spyOn(Blob.prototype, "arrayBuffer");
  const cut = vi.spyOn(Blob.prototype, "slice");
  const blob = new SteadyBlob([bytes]);
  const part = blob.slice(150, 160);
  const found: number[] = [];
  for (const slice of [part, blob.slice(-3)]) for await (const piece of slice.stream()) found.push(...piece);
  expect(found).toEqual([...bytes.subarray(150, 160), ...bytes.subarray(997)]);
  expect(part.size).toBe(10);
  expect(read).toHaveBeenCalledTimes(1);
  expect(cut).toHaveBeenCalledTimes(1);
  read.mockRestore();
  cut.mockRestore();
});

test("pieces end where they should, and a blob that is too short is told", async () => {
  const blob = new SteadyBlob([bytesOf(100)]);
  const all = async (start: number, stop: number) => {
    const found: number[] = [];
    for await (const piece of blob.pieces(start, stop)) found.push(...piece);
    return found;
  };
  expect(await all(90, 100)).toEqual([...bytesOf(100)].slice(90));
  expect(await all(100, 100)).toEqual([]);
  await expect(all(90, 101)).rejects.toThrow(RangeError);
  await expect(all(200, 300)).rejects.toThrow(RangeError);
});

test("nobody gets the reader that hangs", () => {
  expect(() => new SteadyBlob([bytesOf(8)]).stream().getReader({ mode: "byob" })).toThrow(TypeError);
});
