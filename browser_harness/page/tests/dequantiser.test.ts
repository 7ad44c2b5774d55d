import { describe, expect, test } from "vitest";

import { Dequantiser } from "../runtime/dequantiser.ts";
import { codedWeight, type Coded, expected } from "./coded_weight.ts";

/** The bytes at a place, in pieces of odd sizes. */
async function* pieces(file: Uint8Array, offset: number, length: number): AsyncGenerator<Uint8Array> {
  for (let at = offset; at < offset + length; at += 37) yield file.subarray(at, Math.min(at + 37, offset + length));
}

async function floats({ weight, file }: Coded, dequantiser: Dequantiser): Promise<Float32Array> {
  const found: number[] = [];
  const read = ({ offset, length }: { offset: number; length: number }) => pieces(file, offset, length);
  for await (const strip of dequantiser.strips(weight, read)) {
    // A view may begin anywhere; four bytes at a time need a place of their own.
    found.push(...new Float32Array(strip.slice().buffer));
  }
  return Float32Array.from(found);
}

describe("floats of codes", () => {
  const bits = [4, 8] as const;
  const scaleBytes = [2, 4] as const;
  const blocks = [16, 32, 64, 128];
  // Rows are worked on four at a time; the rest one by one.
  const rows = [1, 3, 4, 5, 18, 64];
  const cases = bits.flatMap((b) => scaleBytes.flatMap((s) => blocks.flatMap((k) => rows.map((r) => [b, s, k, r] as const))));

  test.each(cases)("%i bits, scales of %i bytes, blocks of %i, %i rows", async (b, s, block, r) => {
    const dequantiser = await Dequantiser.make();
    for (const columns of [block, 3 * block]) {
      const coded = codedWeight({ rows: r, columns, bits: b, block, scaleBytes: s });
      expect(await floats(coded, dequantiser)).toEqual(expected(coded));
    }
  });

  test("a kernel makes one weight after the other, larger ones too", async () => {
    const dequantiser = await Dequantiser.make();
    for (const [rows, columns] of [[4, 32], [300, 512], [7, 64]] as const) {
      const coded = codedWeight({ rows, columns, bits: 4, block: 32, scaleBytes: 2 });
      expect(await floats(coded, dequantiser)).toEqual(expected(coded));
    }
  });
});
