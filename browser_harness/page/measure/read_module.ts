const PAGE = 65536;
/** Bytes that one turn of the loop reads: four vectors into four accumulators. */
const STRIDE = 64;

/**
 * A WebAssembly module that exports `memory` of `size` bytes (whole pages) and `read(size)`,
 * which reads them 16 at a time: what a product of a matrix with a vector does at best.
 */
export function readModule(size: number): Uint8Array<ArrayBuffer> {
  if (size % PAGE !== 0) throw new RangeError(`${size} bytes are not whole pages of ${PAGE}`);
  const V128 = 0x7b;
  const I32 = 0x7f;
  // Locals: 0 the end, 1 the place, 2 to 5 the accumulators.
  const loads = [0, 1, 2, 3].flatMap((lane) => [
    ...[0x20, 1, 0xfd, 0x00, 4, lane * 16], // v128.load offset=16*lane (local.get 1)
    ...[0x20, 2 + lane, 0xfd, 0x50, 0x21, 2 + lane], // v128.or into the accumulator
  ]);
  const body = [
    ...[2, 1, I32, 4, V128],
    ...[0x03, 0x40, ...loads], // loop
    ...[0x20, 1, 0x41, ...signed(STRIDE), 0x6a, 0x22, 1], // place += 64
    ...[0x20, 0, 0x49, 0x0d, 0, 0x0b], // br_if place < end
    ...[0x20, 2, 0x20, 3, 0xfd, 0x50, 0x20, 4, 0xfd, 0x50, 0x20, 5, 0xfd, 0x50],
    ...[0xfd, 0x1b, 0, 0x0b], // i32x4.extract_lane 0: so that nothing is left out
  ];
  return Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 1, I32, 1, I32]),
    ...section(3, [1, 0]),
    ...section(5, [1, 0, ...unsigned(size / PAGE)]),
    ...section(7, [2, ...named("memory"), 2, 0, ...named("read"), 0, 0]),
    ...section(10, [1, ...unsigned(body.length), ...body]),
  ]);
}

function section(id: number, content: readonly number[]): number[] {
  return [id, ...unsigned(content.length), ...content];
}

function named(name: string): number[] {
  return [name.length, ...new TextEncoder().encode(name)];
}

/** LEB128. */
function unsigned(value: number): number[] {
  return value < 128 ? [value] : [(value % 128) + 128, ...unsigned(Math.floor(value / 128))];
}

/** LEB128 of a positive number whose sign bit has a byte of its own. */
function signed(value: number): number[] {
  return value < 64 ? [value] : [(value % 128) + 128, ...signed(Math.floor(value / 128))];
}
