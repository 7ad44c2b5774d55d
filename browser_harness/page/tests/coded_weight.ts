import type { FoldedWeight } from "../runtime/folded_weights.ts";
import type { ExternalData } from "../runtime/onnx_model.ts";

/** A weight as a shard holds it, and what its bytes stand for. */
export interface Coded {
  readonly weight: FoldedWeight;
  readonly file: Uint8Array<ArrayBuffer>;
  readonly codes: readonly number[];
  readonly scales: readonly number[];
  readonly zeroPoints: readonly number[];
}

export type Shape = Pick<FoldedWeight, "rows" | "columns" | "bits" | "block" | "scaleBytes">;

/** A number from 0 to `below`, another for every `seed`. */
const pick = (seed: number, below: number) => (Math.imul(seed + 1, 0x9e3779b1) >>> 12) % below;

/** Codes, scales and zero points that look like chance, at ranges of one file. */
export function codedWeight(shape: Shape, name = "weight", location = "shard"): Coded {
  const { rows, columns, bits, block, scaleBytes } = shape;
  const count = rows * columns;
  const groups = count / block;
  const codes = Array.from({ length: count }, (_, at) => pick(at, 1 << bits));
  const zeroPoints = Array.from({ length: groups }, (_, at) => pick(at + 7, 1 << bits));
  // Halves of either sign, normal and subnormal.
  const halves = Array.from({ length: groups }, (_, at) => (at % 5 === 0 ? 1 + pick(at, 1023) : 0x400 + pick(at, 0x7000)) | (at % 3 ? 0 : 0x8000));
  const scales = scaleBytes === 2 ? halves.map(halfValue) : halves.map((half) => Math.fround(halfValue(half) / 3));
  const parts = [
    pack(codes, bits),
    scaleBytes === 2 ? new Uint8Array(Uint16Array.from(halves).buffer) : new Uint8Array(Float32Array.from(scales).buffer),
    pack(zeroPoints, bits),
  ];
  const gap = 5;
  const file = new Uint8Array(parts.reduce((sum, part) => sum + gap + part.length, 0));
  let offset = 0;
  const stored = parts.map((part) => {
    file.set(part, offset + gap);
    offset += gap + part.length;
    return { location, offset: offset - part.length, length: part.length };
  });
  const [codeData, scaleData, zeroData] = stored as [ExternalData, ExternalData, ExternalData];
  const weight = { name, ...shape, codes: codeData, scales: scaleData, zeroPoints: zeroData };
  return { weight, file, codes, scales, zeroPoints };
}

/** What DequantizeLinear's definition makes of them, turned: float32 [columns, rows]. */
export function expected({ weight, codes, scales, zeroPoints }: Coded): Float32Array {
  const { rows, columns, block } = weight;
  const turned = new Float32Array(rows * columns);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      const at = row * columns + column;
      const group = Math.floor(at / block);
      turned[column * rows + row] = ((codes[at] as number) - (zeroPoints[group] as number)) * (scales[group] as number);
    }
  }
  return turned;
}

/** As ONNX packs UINT4: two to a byte, the first in the low half. */
function pack(values: readonly number[], bits: 4 | 8): Uint8Array {
  if (bits === 8) return Uint8Array.from(values);
  return Uint8Array.from({ length: Math.ceil(values.length / 2) }, (_, at) => (values[2 * at] as number) | ((values[2 * at + 1] ?? 0) << 4));
}

/** IEEE 754's binary16. */
function halfValue(half: number): number {
  const [sign, exponent, fraction] = [half >> 15 ? -1 : 1, (half >> 10) & 31, half & 1023];
  return sign * (exponent === 0 ? fraction / 2 ** 24 : (1 + fraction / 1024) * 2 ** (exponent - 15));
}
