import type { ErrorCode } from "./errors.ts";
import type { Fallback, Way } from "./schema.ts";

/** Tokens of a prompt's step that every adapter seen so far computes rightly. */
export const SHORT_PREFILL = 16;

/** A way that failed: what was opened of it, and what else this device could run. */
export interface Tried {
  readonly way: Way;
  readonly code: ErrorCode;
  /** Whether the device had features that the target does not need. */
  readonly optionalFeatures: boolean;
  /** Most tokens of a prompt's step that it took. */
  readonly chunk: number;
  /** Targets that were not tried yet, the best first. */
  readonly others: readonly { readonly target: string; readonly gpu: boolean }[];
  /** What the load was asked for: another target starts from that. */
  readonly asked: Omit<Way, "target">;
}

interface Rule {
  readonly step: Fallback["step"];
  /** The failures that it may help against. */
  readonly after: ReadonlySet<ErrorCode>;
  /** The way to take instead, or undefined where that would change nothing. */
  readonly turn: (tried: Tried) => Way | undefined;
}

const WRONG = ["self-check-failed"] as const;
const FAILING = [...WRONG, "run-failed", "session-failed", "graph-unsupported", "context-full"] as const;
/** Nothing on this device's GPU will do. */
const LOST = [...FAILING, "device-lost", "adapter-missing", "feature-missing", "limit-too-small"] as const;

/** What is tried after a failure: the first rule that applies and changes something. */
export const LADDER: readonly Rule[] = [
  {
    step: "needed-features",
    after: new Set<ErrorCode>(WRONG),
    turn: ({ way, optionalFeatures }) => (optionalFeatures ? { ...way, device_features: "needed" } : undefined),
  },
  {
    step: "short-prefill",
    after: new Set<ErrorCode>(WRONG),
    turn: ({ way, chunk }) => (chunk > SHORT_PREFILL ? { ...way, prefill_chunk: SHORT_PREFILL } : undefined),
  },
  {
    step: "plain-loop",
    after: new Set<ErrorCode>(FAILING),
    turn: ({ way }) => (way.loop === "resident" ? { ...way, loop: "plain" } : undefined),
  },
  {
    step: "other-target",
    after: new Set<ErrorCode>(LOST),
    turn: ({ others, asked }) => anew(others.find(({ gpu }) => gpu)?.target, asked),
  },
  {
    step: "cpu",
    after: new Set<ErrorCode>(LOST),
    turn: ({ others, asked }) => anew(others.find(({ gpu }) => !gpu)?.target, asked),
  },
];

function anew(target: string | undefined, asked: Omit<Way, "target">): Way | undefined {
  return target === undefined ? undefined : { ...asked, target };
}

/** The next way down, or undefined when there is none. */
export function fallBack(tried: Tried, reason: string): Fallback | undefined {
  for (const { step, after, turn } of LADDER) {
    const taken = after.has(tried.code) ? turn(tried) : undefined;
    if (taken) return { step, failed: tried.way, taken, code: tried.code, reason };
  }
  return undefined;
}
