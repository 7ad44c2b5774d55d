import { TabwrightError } from "./errors.ts";

/**
 * Checks a count or a length that a caller may give.
 *
 * @param given undefined where it was left out.
 * @param least the smallest that makes sense.
 * @throws TabwrightError `bad-input` naming `name`.
 */
export function checkCount(name: string, given: unknown, least: 0 | 1): void {
  if (given === undefined || (Number.isInteger(given) && (given as number) >= least)) return;
  throw new TabwrightError("bad-input", `'${name}' is ${String(given)}; whole numbers from ${least} up are understood`);
}
