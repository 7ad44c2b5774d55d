// AssemblyScript, compiled to WebAssembly with SIMD.  Its caller lays out the memory.

/** Codes of a row that are worked on at once: a vector of bytes. */
const TOGETHER: u32 = 16;

/** Where the caller's memory begins. */
export function start(): usize {
  return __heap_base;
}

/**
 * What ONNX's DequantizeLinear makes of codes [rows, columns] in blocks along the columns, turned:
 * columns `from` to `to` become float32 [to - from, rows] at `out`.
 *
 * @param codes unsigned, of 4 bits (the low half of a byte first) or 8, row after row.
 * @param scales float16 or float32 [rows, columns / block].
 * @param zeroPoints like the codes, [rows, columns / block].
 * @param columns a multiple of `block`, which is a multiple of 16, as are `from` and `to`.
 * @param bits 4 or 8.
 * @param scaleBytes 2 or 4.
 */
export function dequantise(
  codes: usize,
  scales: usize,
  zeroPoints: usize,
  out: usize,
  rows: u32,
  columns: u32,
  from: u32,
  to: u32,
  bits: u32,
  block: u32,
  scaleBytes: u32,
): void {
  const blocks = columns / block;
  const stride = <usize>rows << 2;
  for (let column = from; column < to; column += TOGETHER) {
    const first = out + <usize>(column - from) * stride;
    let row: u32 = 0;
    for (; row + 4 <= rows; row += 4) {
      const at = row * columns + column;
      const a = load16(codes, at, bits);
      const b = load16(codes, at + columns, bits);
      const c = load16(codes, at + 2 * columns, bits);
      const d = load16(codes, at + 3 * columns, bits);
      const group = row * blocks + column / block;
      const scale = f32x4(
        scaleAt(scales, group, scaleBytes),
        scaleAt(scales, group + blocks, scaleBytes),
        scaleAt(scales, group + 2 * blocks, scaleBytes),
        scaleAt(scales, group + 3 * blocks, scaleBytes),
      );
      const zero = f32x4(
        <f32>codeAt(zeroPoints, group, bits),
        <f32>codeAt(zeroPoints, group + blocks, bits),
        <f32>codeAt(zeroPoints, group + 2 * blocks, bits),
        <f32>codeAt(zeroPoints, group + 3 * blocks, bits),
      );
      // Four rows of sixteen columns become sixteen columns of four rows, as bytes.
      const ab = v128.shuffle<u8>(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      const cd = v128.shuffle<u8>(c, d, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
      const abAfter = v128.shuffle<u8>(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      const cdAfter = v128.shuffle<u8>(c, d, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
      const place = first + (<usize>row << 2);
      store4(v128.shuffle<u16>(ab, cd, 0, 8, 1, 9, 2, 10, 3, 11), scale, zero, place, stride);
      store4(v128.shuffle<u16>(ab, cd, 4, 12, 5, 13, 6, 14, 7, 15), scale, zero, place + 4 * stride, stride);
      store4(v128.shuffle<u16>(abAfter, cdAfter, 0, 8, 1, 9, 2, 10, 3, 11), scale, zero, place + 8 * stride, stride);
      store4(v128.shuffle<u16>(abAfter, cdAfter, 4, 12, 5, 13, 6, 14, 7, 15), scale, zero, place + 12 * stride, stride);
    }
    for (; row < rows; row++) {
      const group = row * blocks + column / block;
      const scale = scaleAt(scales, group, scaleBytes);
      const zero = <f32>codeAt(zeroPoints, group, bits);
      for (let next: u32 = 0; next < TOGETHER; next++) {
        const code = <f32>codeAt(codes, row * columns + column + next, bits);
        store<f32>(first + <usize>next * stride + (<usize>row << 2), (code - zero) * scale);
      }
    }
  }
}

/** Sixteen codes from the one at `index` on, a byte each. */
@inline
function load16(codes: usize, index: u32, bits: u32): v128 {
  if (bits == 8) return v128.load(codes + index);
  const pairs = v128.load64_zero(codes + (index >> 1));
  const low = v128.and(pairs, i8x16.splat(15));
  const high = i8x16.shr_u(pairs, 4);
  return v128.shuffle<u8>(low, high, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
}

/** Four columns of four rows each, as floats, a column every `stride` bytes. */
@inline
function store4(codes: v128, scale: v128, zero: v128, place: usize, stride: usize): void {
  const low = i16x8.extend_low_i8x16_u(codes);
  const high = i16x8.extend_high_i8x16_u(codes);
  v128.store(place, floats(i32x4.extend_low_i16x8_u(low), scale, zero));
  v128.store(place + stride, floats(i32x4.extend_high_i16x8_u(low), scale, zero));
  v128.store(place + 2 * stride, floats(i32x4.extend_low_i16x8_u(high), scale, zero));
  v128.store(place + 3 * stride, floats(i32x4.extend_high_i16x8_u(high), scale, zero));
}

@inline
function floats(codes: v128, scale: v128, zero: v128): v128 {
  return f32x4.mul(f32x4.sub(f32x4.convert_i32x4_u(codes), zero), scale);
}

@inline
function codeAt(codes: usize, index: u32, bits: u32): u32 {
  if (bits == 8) return load<u8>(codes + index);
  return (load<u8>(codes + (index >> 1)) >> <u8>((index & 1) << 2)) & 15;
}

@inline
function scaleAt(scales: usize, index: u32, bytes: u32): f32 {
  if (bytes == 4) return load<f32>(scales + (index << 2));
  const half = <u32>load<u16>(scales + (index << 1));
  // 2**112 is what the exponents' biases differ by; subnormals come out right as well.
  const magnitude = reinterpret<f32>((half & 0x7fff) << 13) * <f32>5.192296858534828e33;
  return half & 0x8000 ? -magnitude : magnitude;
}
