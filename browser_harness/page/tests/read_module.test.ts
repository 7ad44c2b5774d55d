import { expect, test } from "vitest";

import { readModule } from "../measure/read_module.ts";

const PAGE = 65536;

interface Exports {
  readonly memory: WebAssembly.Memory;
  read(size: number): number;
}

async function open(size: number): Promise<Exports> {
  const { instance } = await WebAssembly.instantiate(readModule(size));
  return instance.exports as unknown as Exports;
}

test("every byte of the memory is read, and none behind the end", async () => {
  const size = 200 * PAGE; // more pages than one byte of LEB128 tells
  const { memory, read } = await open(size);
  expect(memory.buffer.byteLength).toBe(size);
  expect(read(size)).toBe(0);
  const words = new Uint32Array(memory.buffer);
  // Lane 0 of each vector: the first of every four words; one bit for each place.
  for (const [bit, word] of [0, 4, 8, 12, 16, 4 * 1024, words.length - 4].entries()) {
    words[word] = 1 << bit;
  }
  expect(read(size)).toBe(0b1111111);
  expect(read(size - 64)).toBe(0b0111111);
  expect(read(64)).toBe(0b0001111);
});

test("a size of less than whole pages is refused", () => {
  expect(() => readModule(PAGE + 1)).toThrow(RangeError);
});
