import { expect, test } from "vitest";

import { prepareOrt } from "../runtime/ort.ts";

test("ONNX Runtime keeps its threads, and a way that wanted others is told how many there are", () => {
  const notes: string[] = [];
  const [module, wasm] = [new Blob(["export default 1"]), new Blob([])];
  expect(prepareOrt(module, wasm, 1, notes)).toBe(1);
  expect(prepareOrt(module, wasm, 1, notes)).toBe(1);
  expect(notes).toEqual([]);
  expect(prepareOrt(module, wasm, 4, notes)).toBe(1);
  // It may have started in this very load, for a way that failed: the note says no more than is known.
  expect(notes).toEqual(["CPU threads: 1, not 4: ONNX Runtime had started before, and starts only once"]);
});
