// A weight as ONNX's DequantizeLinear has it, put in the order in which product.ts reads it.
//
// Of the source each row's codes lie one after the other, two to a byte at 4 bits; scales and zero points
// are [rows, columns / block].

import { beforeCodes, PANEL, SCALES } from "./panel";
import { store4 } from "./store";

/** Columns that are read at a time, which divides every span. */
const AT_ONCE: u32 = 16;

/**
 * Packs up to 16 rows.
 *
 * @param codes the first of `rows` rows of codes.
 * @param scales [rows, columns / block], of 2 or 4 bytes each.
 * @param zeroPoints the same of codes.
 * @param zeros whether zero points are packed.
 * @param span columns of a packed span, which divides `block`.
 * @param packed where the panel begins.
 */
export function pack(
  codes: usize,
  scales: usize,
  scaleBytes: u32,
  zeroPoints: usize,
  zeros: bool,
  rows: u32,
  columns: u32,
  bits: u32,
  block: u32,
  span: u32,
  packed: usize,
): void {
  const stride = (<usize>columns * bits) >> 3;
  const blocks = columns / block;
  const last = rows - 1;
  for (let column: u32 = 0; column < columns; column += AT_ONCE) {
    if (column % span == 0) {
      for (let row: u32 = 0; row < PANEL; row++) {
        const group = min(row, last) * blocks + column / block;
        // What `product.ts` reads 16 times too large.
        const factor: f32 = bits == 4 && row & 4 ? 0.0625 : 1;
        store<f32>(packed + (<usize>row << 2), row > last ? 0 : scaleAt(scales, group, scaleBytes) * factor);
        if (zeros) store<u8>(packed + SCALES + row, codeAt(zeroPoints, group, bits));
      }
      packed += beforeCodes(zeros);
    }
    const first = codes + ((<usize>column * bits) >> 3);
    for (let lane: u32 = 0; lane < 4; lane++) {
      const a = first + <usize>min(lane, last) * stride;
      const b = first + <usize>min(lane + 4, last) * stride;
      const c = first + <usize>min(lane + 8, last) * stride;
      const d = first + <usize>min(lane + 12, last) * stride;
      if (bits == 4) packNibbles(a, b, c, d, packed + lane * 4);
      else packBytes(a, b, c, d, packed + lane * 4);
    }
    packed += 2 * AT_ONCE * bits;
  }
}

/** Sixteen columns of four rows, of 4 bits each: 8 pairs of columns, 16 bytes apart. */
@inline
function packNibbles(a: usize, b: usize, c: usize, d: usize, place: usize): void {
  const low = i8x16.splat(0x0f);
  const high = i8x16.splat(<i8>0xf0);
  const av = v128.load64_zero(a);
  const bv = v128.load64_zero(b);
  const cv = v128.load64_zero(c);
  const dv = v128.load64_zero(d);
  const even = interleaved(
    v128.or(v128.and(av, low), i8x16.shl(bv, 4)),
    v128.or(v128.and(cv, low), i8x16.shl(dv, 4)),
  );
  const odd = interleaved(
    v128.or(i8x16.shr_u(av, 4), v128.and(bv, high)),
    v128.or(i8x16.shr_u(cv, 4), v128.and(dv, high)),
  );
  store4(v128.shuffle<u16>(even, odd, 0, 8, 1, 9, 2, 10, 3, 11), place, 16);
  store4(v128.shuffle<u16>(even, odd, 4, 12, 5, 13, 6, 14, 7, 15), place + 64, 16);
}

/** Sixteen columns of four rows, a byte each: 8 pairs of columns, 32 bytes apart. */
@inline
function packBytes(a: usize, b: usize, c: usize, d: usize, place: usize): void {
  const av = v128.load(a);
  const bv = v128.load(b);
  const cv = v128.load(c);
  const dv = v128.load(d);
  store4(interleaved(av, bv), place, 32);
  store4(interleavedAfter(av, bv), place + 128, 32);
  store4(interleaved(cv, dv), place + 16, 32);
  store4(interleavedAfter(cv, dv), place + 144, 32);
}

/** The first eight bytes of both in turns. */
@inline
function interleaved(a: v128, b: v128): v128 {
  return v128.shuffle<u8>(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

/** The last eight. */
@inline
function interleavedAfter(a: v128, b: v128): v128 {
  return v128.shuffle<u8>(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
}

function codeAt(codes: usize, index: u32, bits: u32): u8 {
  if (bits == 8) return load<u8>(codes + index);
  return (load<u8>(codes + (index >> 1)) >> <u8>((index & 1) << 2)) & 15;
}

function scaleAt(scales: usize, index: u32, bytes: u32): f32 {
  if (bytes == 4) return load<f32>(scales + (<usize>index << 2));
  const half = <u32>load<u16>(scales + (<usize>index << 1));
  // 2**112 is what the exponents' biases differ by; subnormals come out right as well.
  const magnitude = reinterpret<f32>((half & 0x7fff) << 13) * <f32>5.192296858534828e33;
  return half & 0x8000 ? -magnitude : magnitude;
}
