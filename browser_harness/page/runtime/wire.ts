/** What a page and its worker say to each other. */
import { type ErrorCode, reason, TabwrightError } from "./errors.ts";

/** A worker of this name is one that serves a model; see host.ts. */
export const WORKER_NAME = "tabwright";

/** The page asks for `method`, goes on from an item of that call, or takes the call back. */
export type Request =
  | { readonly call: number; readonly method: string; readonly args: readonly unknown[] }
  | { readonly call: number; readonly next: true }
  | { readonly call: number; readonly stop: true };

/** Any number of items, then how the call ended. After one that `waits` no other comes before the page wants it. */
export type Reply =
  | { readonly call: number; readonly item: unknown; readonly waits?: true }
  | { readonly call: number; readonly result: unknown }
  | { readonly call: number; readonly error: Failure };

/** A TabwrightError without what cannot be cloned. */
export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
}

/** What was thrown in the worker, for the page. */
export function pack(thrown: unknown): Failure {
  if (thrown instanceof TabwrightError) return { code: thrown.code, message: thrown.message };
  return { code: "worker-failed", message: `the worker failed: ${reason(thrown)}` };
}

export function unpack({ code, message }: Failure): TabwrightError {
  return new TabwrightError(code, message);
}
