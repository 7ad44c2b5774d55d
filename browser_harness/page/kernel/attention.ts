// Attention of queries over a cache of keys and values that is added to in place.
//
// Both lie as multiplyRows wants its panels: of a head's keys 16 positions, [width, 16] floats, and of its values 16
// columns, [capacity, 16]. Query heads that share a key head are rows of one product where there is one
// position. Parts of a job are all done the same way whichever thread does them.

import { OWN, take } from "./job";
import { PANEL as ROWS } from "./panel";
import { multiplyRows } from "./rows";
import { store4 } from "./store";

// Where a job's numbers are, in bytes from its start: u32 but where told.
const HEADS: usize = OWN;
const KEY_HEADS: usize = OWN + 4;
/** Values of a head, a multiple of 16. */
const WIDTH: usize = OWN + 8;
/** Pairs of a head's values that are rotated, the first with the one so many after it: a multiple of 4. */
const PAIRS: usize = OWN + 12;
/** Positions that each sees, itself among them; 0 for all before it. */
const WINDOW: usize = OWN + 16;
/** f32, of scores */
const SCALE: usize = OWN + 20;
/** New positions. */
const COUNT: usize = OWN + 24;
/** Positions in the cache. */
const START: usize = OWN + 28;
/** Positions that the keys have room for, and the values, multiples of 16. */
const KEY_CAPACITY: usize = OWN + 32;
const VALUE_CAPACITY: usize = OWN + 36;
/** f32 [count, heads, width], and the bytes from one position to the next */
const QUERY: usize = OWN + 40;
const QUERY_BYTES: usize = OWN + 44;
/** f32 [count, key heads, width], both, and the bytes from one position to the next */
const KEY: usize = OWN + 48;
const VALUE: usize = OWN + 52;
const KEY_BYTES: usize = OWN + 56;
/** f32 [positions, pairs] */
const COSINES: usize = OWN + 60;
const SINES: usize = OWN + 64;
/** f32 [key heads, key capacity / 16, width, 16] */
const KEYS: usize = OWN + 68;
/** f32 [key heads, width / 16, value capacity, 16] */
const VALUES: usize = OWN + 72;
/** Room for rotated queries: f32 [count, heads, width]. */
const ROTATED: usize = OWN + 76;
/** Room for scores, and then for weights: f32 [heads, count, start + count, and up to the next 16]. */
const SCORED: usize = OWN + 80;
/** f32 [count, heads, width] */
const ATTENDED: usize = OWN + 84;

/** Positions, or values of a head, that are multiplied at once. */
const PANEL: usize = ROWS;
/** Panels of keys and rows of scores that a thread takes at a time. */
const AT_ONCE: u32 = 4;
const NEVER: f32 = -Infinity;

@inline
function word(job: usize, at: usize): usize {
  return load<u32>(job + at);
}

/** Rotates queries and keys, and puts keys and values into the cache. */
export function append(job: usize): void {
  const width = word(job, WIDTH);
  const pairs = word(job, PAIRS);
  const start = word(job, START);
  const count = word(job, COUNT);
  const keyCapacity = word(job, KEY_CAPACITY);
  const valueCapacity = word(job, VALUE_CAPACITY);
  const headBytes = width << 2;
  let rotated = word(job, ROTATED);
  for (let row: usize = 0; row < count; row++) {
    const position = start + row;
    const cosines = word(job, COSINES) + ((position * pairs) << 2);
    const sines = word(job, SINES) + ((position * pairs) << 2);
    const query = word(job, QUERY) + row * word(job, QUERY_BYTES);
    const heads = word(job, HEADS);
    for (let head: usize = 0; head < heads; head++, rotated += headBytes) {
      rotate(query + head * headBytes, cosines, sines, pairs, width, load<f32>(job + SCALE), rotated, 4);
    }
    const beside = row * word(job, KEY_BYTES);
    const keyHeads = word(job, KEY_HEADS);
    for (let head: usize = 0; head < keyHeads; head++) {
      const key = word(job, KEY) + beside + head * headBytes;
      const lane = (position & ~15) * headBytes + ((position & 15) << 2);
      rotate(key, cosines, sines, pairs, width, 1, word(job, KEYS) + head * keyCapacity * headBytes + lane, 64);
      const value = word(job, VALUE) + beside + head * headBytes;
      let place = word(job, VALUES) + head * valueCapacity * headBytes + (position << 6);
      for (let at: usize = 0; at < headBytes; at += 64, place += valueCapacity << 6) memory.copy(place, value + at, 64);
    }
  }
}

/** A head's values times `scale`, the first pairs rotated, `apart` bytes from each other. */
function rotate(
  x: usize,
  cosines: usize,
  sines: usize,
  pairs: usize,
  width: usize,
  scale: f32,
  place: usize,
  apart: usize,
): void {
  const by = f32x4.splat(scale);
  for (let pair: usize = 0; pair < pairs; pair += 4) {
    const first = v128.load(x + (pair << 2));
    const second = v128.load(x + ((pair + pairs) << 2));
    const cosine = v128.load(cosines + (pair << 2));
    const sine = v128.load(sines + (pair << 2));
    const left = f32x4.sub(f32x4.mul(first, cosine), f32x4.mul(second, sine));
    const right = f32x4.add(f32x4.mul(second, cosine), f32x4.mul(first, sine));
    store4(f32x4.mul(left, by), place + pair * apart, apart);
    store4(f32x4.mul(right, by), place + (pair + pairs) * apart, apart);
  }
  for (let at = pairs << 1; at < width; at += 4) {
    store4(f32x4.mul(v128.load(x + (at << 2)), by), place + at * apart, apart);
  }
}

/** The first position that a new one sees. */
@inline
function firstSeen(job: usize, row: usize): usize {
  const window = word(job, WINDOW);
  const end = word(job, START) + row + 1;
  return window != 0 && end > window ? end - window : 0;
}

/** Floats from a row of scores to the next. */
@inline
function scoresBetween(job: usize): usize {
  return (word(job, START) + word(job, COUNT) + PANEL - 1) & ~(PANEL - 1);
}

/** Multiplies queries by panels of keys. */
export function scores(job: usize): void {
  const panels = scoresBetween(job) / PANEL;
  const parts = panels * word(job, KEY_HEADS);
  for (;;) {
    const from = <usize>take(job, AT_ONCE);
    if (from >= parts) return;
    for (let part = from; part < min(from + AT_ONCE, parts); part++) score(job, part / panels, part % panels);
  }
}

function score(job: usize, keyHead: usize, panel: usize): void {
  const width = word(job, WIDTH);
  const headBytes = width << 2;
  const heads = word(job, HEADS);
  const together = heads / word(job, KEY_HEADS);
  const count = word(job, COUNT);
  const first = panel * PANEL;
  // Rows that see none of these positions are left out.
  const start = word(job, START);
  const from = first > start ? first - start : 0;
  let to = count;
  while (to > from && firstSeen(job, to - 1) >= first + PANEL) to--;
  if (from == to) return;
  const keys = word(job, KEYS) + (keyHead * word(job, KEY_CAPACITY) + first) * headBytes;
  const between = scoresBetween(job) << 2;
  for (let other: usize = 0; other < together; other++) {
    const head = keyHead * together + other;
    const x = word(job, ROTATED) + (from * heads + head) * headBytes;
    const y = word(job, SCORED) + (head * count + from) * between + (first << 2);
    // All heads of one position lie one after the other, as positions do otherwise.
    if (count == 1) {
      multiplyRows(x, headBytes, <u32>together, keys, <u32>width, y, between, 16);
      return;
    }
    multiplyRows(x, heads * headBytes, <u32>(to - from), keys, <u32>width, y, between, 16);
  }
}

/** Makes weights of scores: their softmax. */
export function weights(job: usize): void {
  const count = word(job, COUNT);
  const rows = count * word(job, HEADS);
  const between = scoresBetween(job);
  for (;;) {
    const next = <usize>take(job, AT_ONCE);
    if (next >= rows) return;
    for (let row = next; row < min(next + AT_ONCE, rows); row++) {
      const place = word(job, SCORED) + ((row * between) << 2);
      const position = row % count;
      weigh(place, firstSeen(job, position), word(job, START) + position + 1, between);
    }
  }
}

/** The softmax of the scores from `from` to before `to`, and zeros beside them: one before, and one after. */
function weigh(place: usize, from: usize, to: usize, length: usize): void {
  const first = (from > 0 ? from - 1 : 0) & ~3;
  const end = min(length, (to + 4) & ~3);
  for (let at = first; at < from; at++) store<f32>(place + (at << 2), NEVER);
  for (let at = to; at < end; at++) store<f32>(place + (at << 2), NEVER);
  const begin = place + (first << 2);
  const after = place + (end << 2);
  let largest = f32x4.splat(NEVER);
  for (let at = begin; at < after; at += 16) largest = f32x4.max(largest, v128.load(at));
  const most = f32x4.splat(
    max(
      max(f32x4.extract_lane(largest, 0), f32x4.extract_lane(largest, 1)),
      max(f32x4.extract_lane(largest, 2), f32x4.extract_lane(largest, 3)),
    ),
  );
  let sum = f32x4.splat(0);
  for (let at = begin; at < after; at += 16) {
    const weight = exponential(f32x4.sub(v128.load(at), most));
    v128.store(at, weight);
    sum = f32x4.add(sum, weight);
  }
  const total =
    f32x4.extract_lane(sum, 0) + f32x4.extract_lane(sum, 1) + f32x4.extract_lane(sum, 2) + f32x4.extract_lane(sum, 3);
  const share = f32x4.splat(1 / total);
  for (let at = begin; at < after; at += 16) v128.store(at, f32x4.mul(v128.load(at), share));
}

/** e to the power of x, which is at most 0: a power of 2 times a polynomial between the roots of 1/2 and of 2. */
@inline
function exponential(x: v128): v128 {
  const power = f32x4.nearest(f32x4.mul(x, f32x4.splat(1.4426950408889634)));
  // The logarithm of 2 in two parts, so that the first times a power is exact.
  const rest = f32x4.sub(f32x4.sub(x, f32x4.mul(power, f32x4.splat(0.693359375))), f32x4.mul(power, f32x4.splat(-2.12194440e-4)));
  let sum = f32x4.splat(1 / 5040);
  sum = f32x4.add(f32x4.mul(sum, rest), f32x4.splat(1 / 720));
  sum = f32x4.add(f32x4.mul(sum, rest), f32x4.splat(1 / 120));
  sum = f32x4.add(f32x4.mul(sum, rest), f32x4.splat(1 / 24));
  sum = f32x4.add(f32x4.mul(sum, rest), f32x4.splat(1 / 6));
  sum = f32x4.add(f32x4.mul(sum, rest), f32x4.splat(0.5));
  sum = f32x4.add(f32x4.mul(sum, rest), f32x4.splat(1));
  sum = f32x4.add(f32x4.mul(sum, rest), f32x4.splat(1));
  const exponent = i32x4.shl(i32x4.add(i32x4.trunc_sat_f32x4_s(power), i32x4.splat(127)), 23);
  // What is no number stays none.
  return v128.andnot(f32x4.mul(sum, exponent), f32x4.lt(x, f32x4.splat(-87)));
}

/** Multiplies weights by panels of values. */
export function values(job: usize): void {
  const panels = word(job, WIDTH) / PANEL;
  const parts = panels * word(job, KEY_HEADS);
  for (;;) {
    const part = <usize>take(job, 1);
    if (part >= parts) return;
    sum(job, part / panels, part % panels);
  }
}

function sum(job: usize, keyHead: usize, panel: usize): void {
  const headBytes = word(job, WIDTH) << 2;
  const heads = word(job, HEADS);
  const together = heads / word(job, KEY_HEADS);
  const count = word(job, COUNT);
  const start = word(job, START);
  const capacity = word(job, VALUE_CAPACITY);
  const values = word(job, VALUES) + keyHead * capacity * headBytes + ((panel * capacity) << 6);
  const between = scoresBetween(job) << 2;
  for (let other: usize = 0; other < together; other++) {
    const head = keyHead * together + other;
    // Two rows see almost the same positions, and weights beside what a row sees are zero: only what is no
    // number among the values of the next position spoils a row before it.
    for (let row: usize = 0; row < count; row += 2) {
      const rows = min(<usize>2, count - row);
      const from = firstSeen(job, row);
      const x = word(job, SCORED) + (head * count + row) * between + (from << 2);
      const y = word(job, ATTENDED) + (row * heads + head) * headBytes + (panel << 6);
      const positions = start + row + rows - from;
      if (count == 1) {
        multiplyRows(x, between, <u32>together, values + (from << 6), <u32>positions, y, headBytes, 16);
        return;
      }
      multiplyRows(x, between, <u32>rows, values + (from << 6), <u32>positions, y, heads * headBytes, 16);
    }
  }
}
