// The product of activations with a weight that stays codes of 4 or 8 bits.
//
// A row of activations alone is rounded to two whole numbers of 16 bits each, the second 1/256 as large, with a
// scale for every `span`: products and sums within a span are exact, and what rounding loses is what
// float32 would lose. Reading the codes is what takes the time then. Of more rows a panel is made floats
// once for all of them. A weight lies as panel.ts says. For two columns next to each other a panel's codes are a
// vector (4 bits) or two (8 bits) whose i32 lanes belong to a row each, so that one instruction multiplies
// four rows by both columns. Of the four rows that share an i32 lane at 4 bits, the second and the fourth are
// read 16 times too large, for want of a shift; their scales are as much smaller.

import { OWN, take } from "./job";
import { beforeCodes, PANEL, panelBytes, SCALES } from "./panel";
import { multiplyRows } from "./rows";
import { give } from "./store";

/** The largest whole number that an activation becomes. */
const LARGEST: f32 = 32767;
/** How much smaller the second number's steps are. */
const FINER: f32 = 256;

// Where a job's numbers are, in bytes from its start: all u32.
const WEIGHT: usize = OWN;
/** Whether the weight has zero points of its own. */
const ZEROS: usize = OWN + 4;
const BITS: usize = OWN + 8;
const ROWS: usize = OWN + 12;
const COLUMNS: usize = OWN + 16;
const SPAN: usize = OWN + 20;
/** Rows of activations: one of them is read as `round` leaves it, more as they are. */
const COUNT: usize = OWN + 24;
/** f32 [count, columns] */
const ACTIVATIONS: usize = OWN + 28;
/** i16 [2, columns] */
const ROUNDED: usize = OWN + 32;
/** f32 [columns / span], of the first number */
const STEPS: usize = OWN + 36;
/** i32 [2, columns / span] */
const SUMS: usize = OWN + 40;
/** Room for a panel of floats for each thread: f32 [threads, columns, 16]. */
const FLOATS: usize = OWN + 44;
/** f32 [count, rows] */
const PRODUCTS: usize = OWN + 48;

// What is decided when this is compiled, as types, of which only the size is read.
/** Codes of 4 bits, or of 8. */
type Nibble = u8;
type Byte = u16;

/** Panels that a thread takes at a time. */
const AT_ONCE: u32 = 4;

/** Rounds `length` floats at `values`, a multiple of `span`, to two whole numbers each. */
export function round(values: usize, length: u32, span: u32, rounded: usize, steps: usize, sums: usize): void {
  const second = <usize>length * 2;
  const secondSums = <usize>(length / span) << 2;
  for (const end = values + (<usize>length << 2); values < end; steps += 4, sums += 4) {
    const next = values + (<usize>span << 2);
    let largest = f32x4.splat(0);
    for (let at = values; at < next; at += 16) largest = f32x4.max(largest, f32x4.abs(v128.load(at)));
    const most = max(
      max(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1)),
      max(f32x4.extract_lane(largest, 2), f32x4.extract_lane(largest, 3)),
    );
    // Of numbers so small that this overflows none is seen beside others.
    const factor = f32x4.splat(most > 1e-30 ? LARGEST / most : 0);
    let sum = i32x4.splat(0);
    let finerSum = i32x4.splat(0);
    for (; values < next; values += 32, rounded += 16) {
      const a = f32x4.mul(v128.load(values), factor);
      const b = f32x4.mul(v128.load(values, 16), factor);
      const wholeA = f32x4.nearest(a);
      const wholeB = f32x4.nearest(b);
      const first = whole(wholeA, wholeB);
      const finer = f32x4.splat(FINER);
      const rest = whole(
        f32x4.nearest(f32x4.mul(f32x4.sub(a, wholeA), finer)),
        f32x4.nearest(f32x4.mul(f32x4.sub(b, wholeB), finer)),
      );
      v128.store(rounded, first);
      v128.store(rounded + second, rest);
      const ones = i16x8.splat(1);
      sum = i32x4.add(sum, i32x4.dot_i16x8_s(first, ones));
      finerSum = i32x4.add(finerSum, i32x4.dot_i16x8_s(rest, ones));
    }
    // What is no number must come out as none.
    store<f32>(steps, most / LARGEST);
    store<i32>(sums, total(sum));
    store<i32>(sums + secondSums, total(finerSum));
  }
}

@inline
function whole(a: v128, b: v128): v128 {
  return i16x8.narrow_i32x4_s(i32x4.trunc_sat_f32x4_s(a), i32x4.trunc_sat_f32x4_s(b));
}

@inline
function total(four: v128): i32 {
  return i32x4.extract_lane(four, 0) + i32x4.extract_lane(four, 1) + i32x4.extract_lane(four, 2) + i32x4.extract_lane(four, 3);
}

/** Multiplies panels that nobody else has taken. */
export function products(job: usize, thread: u32): void {
  const panels = (load<u32>(job + ROWS) + PANEL - 1) / PANEL;
  const nibbles = load<u32>(job + BITS) == 4;
  const alone = load<u32>(job + COUNT) == 1;
  const floats = <usize>load<u32>(job + FLOATS) + <usize>thread * load<u32>(job + COLUMNS) * 64;
  for (;;) {
    const from = take(job, AT_ONCE);
    if (from >= panels) return;
    const to = min(from + AT_ONCE, panels);
    for (let panel = from; panel < to; panel++) {
      if (alone) {
        if (nibbles) multiplyRow<Nibble>(job, panel);
        else multiplyRow<Byte>(job, panel);
      } else {
        if (nibbles) unpack<Nibble>(job, panel, floats);
        else unpack<Byte>(job, panel, floats);
        multiplyPanel(job, panel, floats);
      }
    }
  }
}

/** Where a panel begins. */
@inline
function placeOf(job: usize, panel: u32, bits: u32, zeros: bool): usize {
  const bytes = panelBytes(load<u32>(job + COLUMNS), bits, load<u32>(job + SPAN), zeros);
  return <usize>load<u32>(job + WEIGHT) + <usize>panel * bytes;
}

/** A panel by a row of activations as `round` leaves it. */
function multiplyRow<Code>(job: usize, panel: u32): void {
  const bits: u32 = sizeof<Code>() == sizeof<Nibble>() ? 4 : 8;
  const columns = <usize>load<u32>(job + COLUMNS);
  const span = <usize>load<u32>(job + SPAN);
  const zeros = load<u32>(job + ZEROS) != 0;
  const before = <usize>beforeCodes(zeros);
  const second = columns * 2;
  const secondSums = (columns / span) * 4;
  let codes = placeOf(job, panel, bits, zeros);
  let x = <usize>load<u32>(job + ROUNDED);
  let step = <usize>load<u32>(job + STEPS);
  let sum = <usize>load<u32>(job + SUMS);
  let y0 = f32x4.splat(0);
  let y1 = y0;
  let y2 = y0;
  let y3 = y0;
  for (const end = step + secondSums; step < end; step += 4, sum += 4) {
    const scales = codes;
    const offset = -load<i32>(sum);
    let a0 = start(zeros, scales + SCALES, 0, bits, offset);
    let a1 = start(zeros, scales + SCALES, 1, bits, offset);
    let a2 = start(zeros, scales + SCALES, 2, bits, offset);
    let a3 = start(zeros, scales + SCALES, 3, bits, offset);
    const finerOffset = -load<i32>(sum + secondSums);
    let b0 = start(zeros, scales + SCALES, 0, bits, finerOffset);
    let b1 = start(zeros, scales + SCALES, 1, bits, finerOffset);
    let b2 = start(zeros, scales + SCALES, 2, bits, finerOffset);
    let b3 = start(zeros, scales + SCALES, 3, bits, finerOffset);
    codes += before;
    for (const next = x + span * 2; x < next; x += 4) {
      const pair = v128.load32_splat(x);
      const finer = v128.load32_splat(x + second);
      const c0 = four<Code>(codes, 0);
      a0 = i32x4.add(a0, i32x4.dot_i16x8_s(c0, pair));
      b0 = i32x4.add(b0, i32x4.dot_i16x8_s(c0, finer));
      const c1 = four<Code>(codes, 1);
      a1 = i32x4.add(a1, i32x4.dot_i16x8_s(c1, pair));
      b1 = i32x4.add(b1, i32x4.dot_i16x8_s(c1, finer));
      const c2 = four<Code>(codes, 2);
      a2 = i32x4.add(a2, i32x4.dot_i16x8_s(c2, pair));
      b2 = i32x4.add(b2, i32x4.dot_i16x8_s(c2, finer));
      const c3 = four<Code>(codes, 3);
      a3 = i32x4.add(a3, i32x4.dot_i16x8_s(c3, pair));
      b3 = i32x4.add(b3, i32x4.dot_i16x8_s(c3, finer));
      codes += 4 * bits;
    }
    const size = v128.load32_splat(step);
    y0 = scaled(y0, a0, b0, size, scales, 0);
    y1 = scaled(y1, a1, b1, size, scales, 1);
    y2 = scaled(y2, a2, b2, size, scales, 2);
    y3 = scaled(y3, a3, b3, size, scales, 3);
  }
  give(placeOfProducts(job, panel), rowsOf(job, panel), y0, y1, y2, y3);
}

/** Two columns of the `which`th four rows: i16, and at 4 bits 16 times too large where `which` is odd. */
@inline
function four<Code>(codes: usize, which: u32): v128 {
  if (sizeof<Code>() == sizeof<Nibble>()) {
    const both = which < 2 ? v128.load(codes) : i16x8.shr_u(v128.load(codes), 8);
    return v128.and(both, i16x8.splat(which & 1 ? 0x00f0 : 0x000f));
  }
  const both = v128.load(codes + (which < 2 ? 0 : 16));
  return which & 1 ? i16x8.shr_u(both, 8) : v128.and(both, i16x8.splat(0x00ff));
}

/** Makes floats of a panel: [columns, 16]. */
function unpack<Code>(job: usize, panel: u32, floats: usize): void {
  const bits: u32 = sizeof<Code>() == sizeof<Nibble>() ? 4 : 8;
  const columns = load<u32>(job + COLUMNS);
  const span = load<u32>(job + SPAN);
  const zeros = load<u32>(job + ZEROS) != 0;
  const before = <usize>beforeCodes(zeros);
  let codes = placeOf(job, panel, bits, zeros);
  for (let column: u32 = 0; column < columns; column += span) {
    const scales = codes;
    const z0 = start(zeros, scales + SCALES, 0, bits, 1);
    const z1 = start(zeros, scales + SCALES, 1, bits, 1);
    const z2 = start(zeros, scales + SCALES, 2, bits, 1);
    const z3 = start(zeros, scales + SCALES, 3, bits, 1);
    codes += before;
    for (let pair: u32 = 0; pair < span; pair += 2, codes += 4 * bits, floats += 128) {
      unpackFour(four<Code>(codes, 0), z0, v128.load(scales), floats);
      unpackFour(four<Code>(codes, 1), z1, v128.load(scales, 16), floats + 16);
      unpackFour(four<Code>(codes, 2), z2, v128.load(scales, 32), floats + 32);
      unpackFour(four<Code>(codes, 3), z3, v128.load(scales, 48), floats + 48);
    }
  }
}

/** Two columns of four rows, 64 bytes apart. */
@inline
function unpackFour(codes: v128, zeros: v128, scale: v128, place: usize): void {
  const first = v128.and(codes, i32x4.splat(0xffff));
  const second = i32x4.shr_u(codes, 16);
  v128.store(place, f32x4.mul(f32x4.convert_i32x4_s(i32x4.sub(first, zeros)), scale));
  v128.store(place, f32x4.mul(f32x4.convert_i32x4_s(i32x4.sub(second, zeros)), scale), 64);
}

/** A panel of floats by all rows of activations. */
@inline
function multiplyPanel(job: usize, panel: u32, floats: usize): void {
  const columns = load<u32>(job + COLUMNS);
  const rowBytes = <usize>load<u32>(job + ROWS) << 2;
  const place = placeOfProducts(job, panel);
  multiplyRows(load<u32>(job + ACTIVATIONS), <usize>columns << 2, load<u32>(job + COUNT), floats, columns, place, rowBytes, rowsOf(job, panel));
}

/** Where a panel's products of the first row of activations go. */
@inline
function placeOfProducts(job: usize, panel: u32): usize {
  return <usize>load<u32>(job + PRODUCTS) + (<usize>(panel * PANEL) << 2);
}

/** How many of a panel's rows there are: the last panel may have fewer than 16. */
@inline
function rowsOf(job: usize, panel: u32): u32 {
  return min(PANEL, load<u32>(job + ROWS) - panel * PANEL);
}

/** What four rows begin with: `offset`, the sum of the activations below zero, by their zero points. */
@inline
function start(zeros: bool, place: usize, which: u32, bits: u32, offset: i32): v128 {
  const shift = bits == 4 ? (which & 1) << 2 : 0;
  if (!zeros) return i32x4.splat(offset << (bits - 1 + shift));
  const points = i32x4.extend_low_i16x8_u(i16x8.extend_low_i8x16_u(v128.load32_zero(place + <usize>which * 4)));
  return i32x4.shl(i32x4.mul(points, i32x4.splat(offset)), shift);
}

@inline
function scaled(y: v128, sum: v128, finer: v128, size: v128, scales: usize, which: usize): v128 {
  const all = f32x4.add(f32x4.convert_i32x4_s(sum), f32x4.mul(f32x4.convert_i32x4_s(finer), f32x4.splat(1 / FINER)));
  return f32x4.add(y, f32x4.mul(all, f32x4.mul(size, v128.load(scales + which * 16))));
}
