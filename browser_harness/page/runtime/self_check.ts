import { reason, TabwrightError } from "./errors.ts";
import type { Loop } from "./loop.ts";
import type { SelfCheck, SelfCheckResult, TopLogits } from "./schema.ts";

/** How far one position's logits are from the expected ones, and how they were made. */
export interface Deviation {
  readonly position: number;
  readonly how: string;
  /** In spreads; infinite where a logit is not a number. */
  readonly error: number;
}

/**
 * The bundle's self-check.
 *
 * @throws TabwrightError `manifest-invalid` when it is not one that this runtime understands.
 */
export async function readSelfCheck(file: Blob, path: string, vocabulary: number): Promise<SelfCheck> {
  try {
    const check = JSON.parse(await file.text()) as SelfCheck;
    const { format, version, tokens, prompt_tokens } = check;
    const known = tokens.every((id) => Number.isInteger(id) && id >= 0 && id < vocabulary);
    const cut = Number.isInteger(prompt_tokens) && prompt_tokens > 0 && prompt_tokens <= tokens.length;
    if (format === "tabwright-self-check" && version === 1 && known && cut) return check;
  } catch (error) {
    throw new TabwrightError("manifest-invalid", `${path}: ${reason(error)}`, error);
  }
  throw new TabwrightError("manifest-invalid", `${path}: not a self-check of version 1`);
}

/**
 * Feeds the text as a prompt and tokens are fed, and compares what comes out.
 *
 * @returns undefined when the bundle has no answers for `target`.
 * @throws TabwrightError `self-check-failed` naming the worst position, `aborted`, `run-failed`,
 *   `device-lost`.
 */
export async function compareLogits(
  check: SelfCheck,
  target: string,
  loop: Loop,
  signal: AbortSignal | undefined,
): Promise<SelfCheckResult | undefined> {
  const expected = check.targets[target];
  if (expected === undefined) return undefined;
  const answers = new Map(expected.positions.map((answer) => [answer.position, answer]));
  const found: Deviation[] = [];
  const [prompt, rest] = [check.tokens.slice(0, check.prompt_tokens), check.tokens.slice(check.prompt_tokens)];
  try {
    for await (const { position, how, logits } of loop.probe(prompt, rest, signal)) {
      const answer = answers.get(position);
      if (answer) found.push({ position, how, error: errorOf(logits, answer) });
    }
  } finally {
    loop.reset();
  }
  const { tolerance } = expected;
  const worst = found.reduce((most, each) => (each.error > most.error ? each : most));
  if (!(worst.error <= tolerance)) {
    throw new TabwrightError(
      "self-check-failed",
      `${target}: the logits at position ${worst.position} (${worst.how}) are ${worst.error.toPrecision(3)} ` +
        `standard deviations from those stored in the bundle; ${tolerance} is allowed`,
    );
  }
  return { outcome: "passed", error: worst.error, tolerance, positions: found.length };
}

/** The largest distance of the expected logits, in spreads. */
function errorOf(logits: Float32Array, { ids, values, spread }: TopLogits): number {
  const distances = ids.map((id, at) => {
    const distance = Math.abs((logits[id] ?? NaN) - (values[at] as number));
    // Where all logits are equal the spread is 0, and only what is equal is near.
    return distance === 0 ? 0 : distance / spread;
  });
  return distances.every(Number.isFinite) ? Math.max(...distances) : Infinity;
}
