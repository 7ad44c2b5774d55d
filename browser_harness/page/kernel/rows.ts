// Rows of floats by a panel of floats [columns, 16].

import { give } from "./store";

/**
 * Multiplies `count` rows, two at a time.
 *
 * @param x the first row, and `xBytes` from each to the next.
 * @param y where the products of the first row go, and `yBytes` from each to the next.
 * @param left how many of a row's 16 products are stored.
 */
export function multiplyRows(
  x: usize,
  xBytes: usize,
  count: u32,
  panel: usize,
  columns: u32,
  y: usize,
  yBytes: usize,
  left: u32,
): void {
  for (let row: u32 = 0; row < count; row += 2, x += 2 * xBytes, y += 2 * yBytes) {
    // The last one of an odd number is multiplied twice.
    const nextRow = row + 1 < count ? xBytes : 0;
    let at = x;
    let w = panel;
    let y0 = f32x4.splat(0);
    let y1 = y0;
    let y2 = y0;
    let y3 = y0;
    let z0 = y0;
    let z1 = y0;
    let z2 = y0;
    let z3 = y0;
    for (const end = x + (<usize>columns << 2); at < end; at += 4, w += 64) {
      const a = v128.load32_splat(at);
      const b = v128.load32_splat(at + nextRow);
      const w0 = v128.load(w);
      y0 = f32x4.relaxed_madd(a, w0, y0);
      z0 = f32x4.relaxed_madd(b, w0, z0);
      const w1 = v128.load(w, 16);
      y1 = f32x4.relaxed_madd(a, w1, y1);
      z1 = f32x4.relaxed_madd(b, w1, z1);
      const w2 = v128.load(w, 32);
      y2 = f32x4.relaxed_madd(a, w2, y2);
      z2 = f32x4.relaxed_madd(b, w2, z2);
      const w3 = v128.load(w, 48);
      y3 = f32x4.relaxed_madd(a, w3, y3);
      z3 = f32x4.relaxed_madd(b, w3, z3);
    }
    give(y, left, y0, y1, y2, y3);
    if (nextRow) give(y + yBytes, left, z0, z1, z2, z3);
  }
}
