import type { CodedWeight } from "../runtime/coded_weights.ts";
import type { ExternalData } from "../runtime/onnx_model.ts";

/** A weight as a shard holds it, and what its bytes stand for. */
export interface Coded {
  readonly weight: CodedWeight;
  readonly file: Uint8Array<ArrayBuffer>;
  /** [rows, columns], as DequantizeLinear's definition makes it, but exact. */
  readonly values: Float64Array;
}

export interface Shape extends Pick<CodedWeight, "rows" | "columns" | "bits" | "block" | "scaleBytes"> {
  /** Whether all zero points are the middle of what codes may be. */
  readonly middle?: boolean;
  /** Bits of a binary16 for each block; around 1, of either sign, unless told. */
  readonly half?: (group: number) => number;
}

/** A number from 0 to `below`, another for every `seed`. */
export const pick = (seed: number, below: number) => (Math.imul(seed + 1, 0x9e3779b1) >>> 12) % below;

/** Codes, scales and zero points that look like chance, at ranges of one file. */
export function codedWeight({ middle = false, half = around1, ...shape }: Shape, location = "shard"): Coded {
  const { rows, columns, bits, block, scaleBytes } = shape;
  const count = rows * columns;
  const groups = count / block;
  const codes = Array.from({ length: count }, (_, at) => pick(at, 1 << bits));
  const zeroPoints = Array.from({ length: groups }, (_, at) => (middle ? 1 << (bits - 1) : pick(at + 7, 1 << bits)));
  const halves = Array.from({ length: groups }, (_, at) => half(at));
  const scales = scaleBytes === 2 ? halves.map(halfValue) : halves.map((each) => Math.fround(halfValue(each) / 3));
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
  const values = Float64Array.from(codes, (code, at) => {
    const group = Math.floor(at / block);
    return (code - (zeroPoints[group] as number)) * (scales[group] as number);
  });
  return { weight: { ...shape, codes: codeData, scales: scaleData, zeroPoints: zeroData }, file, values };
}

/** From 1/2 to 2. */
const around1 = (group: number) => (0x3800 + pick(group, 0x800)) | (group % 3 ? 0 : 0x8000);

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
