import { describe, expect, test } from "vitest";

import { argmax, makeSampler, type SamplingOptions } from "../runtime/sampling.ts";

// Probabilities 0.5, 0.25, 0.125, 0.125 at temperature 1.
const ROW = Float32Array.from([0.25, 0.5, 0.125, 0.125], Math.log);

function shares(options: SamplingOptions, draws = 20_000): number[] {
  const sample = makeSampler({ seed: 7, ...options });
  const counts = [0, 0, 0, 0];
  for (let i = 0; i < draws; i++) {
    const token = sample(ROW);
    counts[token] = (counts[token] as number) + 1;
  }
  return counts.map((count) => count / draws);
}

function expectShares(found: number[], wanted: number[]): void {
  // Five standard deviations of 20,000 draws.
  found.forEach((share, i) => expect(Math.abs(share - (wanted[i] as number))).toBeLessThan(0.018));
}

test("greedy takes the largest, the first of equals", () => {
  expect(makeSampler({})(ROW)).toBe(1);
  expect(argmax(Float32Array.of(1, 3, 3))).toBe(1);
  expect(argmax(Float32Array.of(-Infinity, -5))).toBe(1);
});

describe("drawing", () => {
  test("follows the probabilities", () => expectShares(shares({ temperature: 1 }), [0.25, 0.5, 0.125, 0.125]));

  test("sharpens with a low temperature", () => {
    // Squares: 1/16, 1/4, 1/64, 1/64 of 22/64.
    expectShares(shares({ temperature: 0.5 }), [4 / 22, 16 / 22, 1 / 22, 1 / 22]);
  });

  test("topK keeps the most likely", () => expectShares(shares({ temperature: 1, topK: 2 }), [1 / 3, 2 / 3, 0, 0]));

  test("topP keeps the shortest head that reaches it", () => {
    expectShares(shares({ temperature: 1, topP: 0.74 }), [1 / 3, 2 / 3, 0, 0]);
    expectShares(shares({ temperature: 1, topP: 0.3 }), [0, 1, 0, 0]);
  });

  test("repeats with its seed", () => {
    const draw = (seed: number) => {
      const sample = makeSampler({ temperature: 1, seed });
      return Array.from({ length: 30 }, () => sample(ROW));
    };
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
  });
});

describe("the repetition penalty", () => {
  const row = Float32Array.of(1, 2, -1, 1.5);

  test("divides what is positive and multiplies what is not", () => {
    expect(makeSampler({ repetitionPenalty: 2 }, [1])(row)).toBe(3);
    expect(makeSampler({ repetitionPenalty: 2 }, [0, 1, 3])(row)).toBe(1);
    expect(makeSampler({ repetitionPenalty: 4 }, [2])(Float32Array.of(-3, -3.5, -1))).toBe(0);
  });

  test("counts what the sampler itself chose", () => {
    const sample = makeSampler({ repetitionPenalty: 2 });
    expect([sample(row), sample(row), sample(row)]).toEqual([1, 3, 0]);
  });

  test("shifts the distribution", () => {
    // 4 to 1; halved, the logarithm of 4 is that of 2.
    const sample = makeSampler({ temperature: 1, repetitionPenalty: 2, seed: 3 }, [0, 1]);
    const logits = Float32Array.of(Math.log(4), 0);
    const draws = Array.from({ length: 20_000 }, () => sample(logits));
    expect(Math.abs(draws.filter((token) => token === 0).length / 20_000 - 2 / 3)).toBeLessThan(0.018);
  });
});

test.each([
  { temperature: -1 },
  { temperature: NaN },
  { topK: 0 },
  { topP: 0 },
  { topP: 1.1 },
  { repetitionPenalty: 0 },
])(
  "refuses %o",
  (options) => expect(() => makeSampler(options)).toThrow(expect.objectContaining({ code: "bad-input" })),
);
