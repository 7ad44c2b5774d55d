// How vectors go to where they are not next to each other, or not whole.

/** Stores the first `left` of 16 products. */
@inline
export function give(place: usize, left: u32, y0: v128, y1: v128, y2: v128, y3: v128): void {
  if (left >= 16) {
    v128.store(place, y0);
    v128.store(place, y1, 16);
    v128.store(place, y2, 32);
    v128.store(place, y3, 48);
    return;
  }
  storeFirst(place, y0, left, 0);
  storeFirst(place, y1, left, 4);
  storeFirst(place, y2, left, 8);
  storeFirst(place, y3, left, 12);
}

function storeFirst(place: usize, four: v128, left: u32, from: u32): void {
  place += <usize>from << 2;
  if (left > from) v128.store_lane<u32>(place, four, 0);
  if (left > from + 1) v128.store_lane<u32>(place, four, 1, 4);
  if (left > from + 2) v128.store_lane<u32>(place, four, 2, 8);
  if (left > from + 3) v128.store_lane<u32>(place, four, 3, 12);
}

/** Stores four numbers of 32 bits, `apart` bytes from each other. */
@inline
export function store4(lanes: v128, place: usize, apart: usize): void {
  v128.store_lane<u32>(place, lanes, 0);
  v128.store_lane<u32>(place + apart, lanes, 1);
  v128.store_lane<u32>(place + 2 * apart, lanes, 2);
  v128.store_lane<u32>(place + 3 * apart, lanes, 3);
}
