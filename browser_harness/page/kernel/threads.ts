// How threads work on one job together. The memory is another module's, and nothing here is kept in it but what
// a caller points to: any number of threads may run this code on it.

import { scores, values, weights } from "./attention";
import { HELPERS, KIND, TURN, untake } from "./job";
import { products } from "./product";

// Kinds of work.
export const MULTIPLYING: u32 = 0;
export const SCORING: u32 = 1;
export const WEIGHING: u32 = 2;
export const SUMMING: u32 = 3;

const NONE_MAY_JOIN: i32 = -1;
/** How often a helper looks for the next job before it sleeps: longer than ONNX Runtime takes in between. */
const LOOKS: u32 = 100_000;

/** Does a job, with the help of whoever is in `serve` on the same. */
export function run(job: usize, kind: u32): void {
  store<u32>(job + KIND, kind);
  untake(job);
  atomic.store<i32>(job + HELPERS, 0);
  atomic.add<u32>(job + TURN, 1);
  atomic.notify(job + TURN, -1);
  work(job, 0);
  // Whoever is still asleep is not waited for.
  while (atomic.cmpxchg<i32>(job + HELPERS, 0, NONE_MAY_JOIN) != 0) {}
}

/** Helps with one job after the other and never returns. A thread, from 1 on, that waits here is to be terminated. */
export function serve(job: usize, thread: u32): void {
  let turn = atomic.load<u32>(job + TURN);
  for (;;) {
    for (let looks: u32 = 0; atomic.load<u32>(job + TURN) == turn; looks++) {
      if (looks >= LOOKS) atomic.wait<i32>(job + TURN, turn, -1);
    }
    turn = atomic.load<u32>(job + TURN);
    if (!joins(job)) continue;
    work(job, thread);
    atomic.sub<i32>(job + HELPERS, 1);
  }
}

function joins(job: usize): bool {
  let helpers = atomic.load<i32>(job + HELPERS);
  while (helpers >= 0) {
    const seen = atomic.cmpxchg<i32>(job + HELPERS, helpers, helpers + 1);
    if (seen == helpers) return true;
    helpers = seen;
  }
  return false;
}

/** Takes parts of a job until there are no more. */
function work(job: usize, thread: u32): void {
  const kind = load<u32>(job + KIND);
  if (kind == MULTIPLYING) products(job, thread);
  else if (kind == SCORING) scores(job);
  else if (kind == WEIGHING) weights(job);
  else values(job);
}
