// How a packed weight lies in memory: panels of 16 rows, each in spans of columns one after the other. A span begins with
// the rows' scales, float32, and their zero points, a byte each, unless all are the middle of what codes may be. Its
// codes follow, 16 rows of them.

/** Rows of a panel. */
export const PANEL: u32 = 16;
/** Bytes of a span's scales. */
export const SCALES: u32 = 4 * PANEL;

/** Bytes of a span before its codes. */
@inline
export function beforeCodes(zeros: bool): u32 {
  return zeros ? SCALES + PANEL : SCALES;
}

/** Bytes of a panel. */
export function panelBytes(columns: u32, bits: u32, span: u32, zeros: bool): u32 {
  return 2 * columns * bits + (columns / span) * beforeCodes(zeros);
}
