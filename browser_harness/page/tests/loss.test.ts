import { expect, test, vi } from "vitest";

import { Loss } from "../runtime/loss.ts";

const never = () => new Promise<never>(() => undefined);

test("nothing is kept of work that has ended, and the loss is waited for once", async () => {
  const lost = never();
  const asked = vi.spyOn(lost, "then");
  const loss = new Loss(lost);
  for (let step = 0; step < 500; step++) expect(await loss.guard(Promise.resolve(step))).toBe(step);
  await expect(loss.guard(Promise.reject(new Error("no memory")))).rejects.toThrow("no memory");
  expect(loss.waiting).toBe(0);
  // Every call of it would leave a reaction, and with that a result, for as long as the device lives.
  expect(asked).toHaveBeenCalledTimes(1);
});

test("a loss ends what is under way, and at once what comes after it", async () => {
  let lose: (error: Error) => void = () => undefined;
  const loss = new Loss(new Promise((_, reject) => (lose = reject)));
  const pending = [loss.guard(never()), loss.guard(never())];
  expect(loss.waiting).toBe(2);
  const gone = new Error("gone");
  lose(gone);
  const rejected = { status: "rejected", reason: gone };
  expect(await Promise.allSettled(pending)).toEqual([rejected, rejected]);
  // Also where the work itself fails later: that is nobody's unhandled rejection.
  const later = [loss.guard(never()), loss.guard(Promise.reject(new Error("later")))];
  expect(await Promise.allSettled(later)).toEqual([rejected, rejected]);
  expect(loss.waiting).toBe(0);
});
