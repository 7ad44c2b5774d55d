/** Codes are part of the interface: the harness and pages match on them. */
export type ErrorCode =
  | "aborted"
  | "adapter-missing"
  | "bad-input"
  | "busy"
  | "chunk-corrupt"
  | "context-full"
  | "device-lost"
  | "disposed"
  | "feature-missing"
  | "file-missing"
  | "graph-unsupported"
  | "http-error"
  | "insecure-context"
  | "jspi-missing"
  | "limit-too-small"
  | "manifest-invalid"
  | "manifest-missing"
  | "memory-too-small"
  | "network"
  | "quota-exceeded"
  | "run-failed"
  | "schema-unsupported"
  | "seal-broken"
  | "self-check-failed"
  | "server-busy"
  | "session-failed"
  | "size-mismatch"
  | "stalled"
  | "store-failed"
  | "target-unknown"
  | "template-failed"
  | "template-missing"
  | "tokenizer-invalid"
  | "truncated"
  | "worker-failed";

/** Every failure that a user of the runtime can meet; `message` names the file or thing. */
export class TabwrightError extends Error {
  override readonly name = "TabwrightError";
  readonly code: ErrorCode;

  constructor(code: ErrorCode, message: string, cause?: unknown) {
    super(message, cause === undefined ? undefined : { cause });
    this.code = code;
  }
}

/** The reason inside whatever was thrown: ORT throws numbers and strings as well as errors. */
export function reason(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** @throws TabwrightError `aborted` when `signal` has fired. */
export function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new TabwrightError("aborted", "stopped on request", signal.reason);
}
