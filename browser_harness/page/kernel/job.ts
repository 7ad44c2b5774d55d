// A job: what threads do together, as words that all of them see. Those from OWN on are
// whoever's who wrote the job.

// Where a job's numbers are, in bytes from its start: u32 but where told.
/** Grows with every job. */
export const TURN: usize = 0;
/** How many threads help with the open job; below 0 none may join. */
export const HELPERS: usize = 4;
/** The next part that nobody has taken. */
const NEXT: usize = 8;
/** Which of `threads.ts`'s kinds of work it is. */
export const KIND: usize = 12;
/** Where the words of each kind begin. */
export const OWN: usize = 16;

/** Has all parts of a job to be taken. */
@inline
export function untake(job: usize): void {
  atomic.store<u32>(job + NEXT, 0);
}

/** The first of `count` parts that nobody else gets. */
@inline
export function take(job: usize, count: u32): u32 {
  return atomic.add<u32>(job + NEXT, count);
}
