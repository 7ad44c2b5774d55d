// What the page calls, beside packing and rounding.

import { append } from "./attention";
import { MULTIPLYING, run, SCORING, SUMMING, WEIGHING } from "./threads";

/** Multiplies as a job of `product.ts` says. */
export function multiply(job: usize): void {
  run(job, MULTIPLYING);
}

/** Attends as a job of `attention.ts` says. */
export function attend(job: usize): void {
  append(job);
  run(job, SCORING);
  run(job, WEIGHING);
  run(job, SUMMING);
}
