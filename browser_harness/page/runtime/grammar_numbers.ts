/** Numbers within bounds as EBNF, whose doubles are within them too. */

/** Fifteen digits: every such decimal and its double are in the same order. */
const DIGITS = 15;
const LARGEST = 10 ** DIGITS - 1;
/** Where a side is open, numbers with decimals stop here, so that there is room for them. */
const LARGEST_WITH_DECIMALS = 10 ** 9 - 1;

export const ANY_INTEGER = `("0" | "-"? [1-9] [0-9]{0,${DIGITS - 1}})`;
export const ANY_NUMBER = `("-"? ("0" | [1-9] [0-9]{0,${DIGITS - 1}}) ("." [0-9]{1,${DIGITS}})? ([eE] ("+" | "-")? [0-9]{1,2})?)`;

/** A limit, and whether it is itself outside. */
export interface Bound {
  readonly value: number;
  readonly exclusive: boolean;
}

/** The integers between two bounds, or undefined where there are none. */
export function integersWithin(low: Bound | undefined, high: Bound | undefined): string | undefined {
  const first = low === undefined ? -LARGEST : low.exclusive ? Math.floor(low.value) + 1 : Math.ceil(low.value);
  const last = high === undefined ? LARGEST : high.exclusive ? Math.ceil(high.value) - 1 : Math.floor(high.value);
  return integersBetween(Math.max(first, -LARGEST), Math.min(last, LARGEST));
}

/**
 * The decimals between two bounds, which must be whole, without exponents. Digits after the
 * point end in another than 0, unless they are a single 0: so no bound is met where it is exclusive.
 */
export function decimalsWithin(low: Bound | undefined, high: Bound | undefined): string | undefined {
  const least = low?.value ?? Math.min(-LARGEST_WITH_DECIMALS, (high?.value ?? 0) - 1);
  const most = high?.value ?? Math.max(LARGEST_WITH_DECIMALS, (low?.value ?? 0) + 1);
  const parts: string[] = [];
  const whole = integersWithin({ value: least, exclusive: low?.exclusive ?? false }, { value: most, exclusive: high?.exclusive ?? false });
  if (whole !== undefined) parts.push(`${whole} ("." "0")?`);
  const room = DIGITS - `${Math.max(Math.abs(least), Math.abs(most))}`.length;
  if (room > 0) {
    const fraction = `"." [0-9]{0,${room - 1}} [1-9]`;
    const above = integersBetween(Math.max(least, 0), most - 1);
    if (above !== undefined) parts.push(`${above} ${fraction}`);
    const below = integersBetween(Math.max(-most, 0), -least - 1);
    if (below !== undefined) parts.push(`"-" ${below} ${fraction}`);
  }
  return parts.length === 0 ? undefined : `(${parts.join(" | ")})`;
}

/** The integers from `low` to `high`, which have at most fifteen digits. */
function integersBetween(low: number, high: number): string | undefined {
  const parts: string[] = [];
  if (low < 0) {
    const negative = magnitudes(Math.max(1, -high), -low);
    if (negative !== undefined) parts.push(`"-" ${negative}`);
  }
  const positive = magnitudes(Math.max(low, 0), high);
  if (positive !== undefined) parts.push(positive);
  return parts.length === 0 ? undefined : `(${parts.join(" | ")})`;
}

/** The integers from `low`, at least 0, to `high`: for each count of digits a pattern of its own. */
function magnitudes(low: number, high: number): string | undefined {
  if (high < low) return undefined;
  const parts: string[] = [];
  for (let digits = `${low}`.length; digits <= `${high}`.length; digits++) {
    const from = Math.max(low, digits === 1 ? 0 : 10 ** (digits - 1));
    parts.push(sameLength(`${from}`, `${Math.min(high, 10 ** digits - 1)}`));
  }
  return `(${parts.join(" | ")})`;
}

/** The numbers of as many digits as `low` and `high` have. */
function sameLength(low: string, high: string): string {
  const count = low.length;
  if (/^0*$/.test(low) && /^9*$/.test(high)) return count === 0 ? '""' : `[0-9]{${count}}`;
  const [first, last] = [Number(low[0]), Number(high[0])];
  const rest = (digit: string) => digit.repeat(count - 1);
  if (first === last) return `"${first}" ${sameLength(low.slice(1), high.slice(1))}`;
  const parts = [`"${first}" ${sameLength(low.slice(1), rest("9"))}`];
  if (last - first > 1) parts.push(`[${first + 1}-${last - 1}] ${sameLength(rest("0"), rest("9"))}`);
  parts.push(`"${last}" ${sameLength(rest("0"), high.slice(1))}`);
  return `(${parts.join(" | ")})`;
}
