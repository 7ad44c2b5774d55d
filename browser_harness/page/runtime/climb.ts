import { type Attempting, loopOf, type Opened, openWay } from "./attempt.ts";
import { isSoftware, requestAdapter } from "./device.ts";
import { TabwrightError } from "./errors.ts";
import { fallBack, type Tried } from "./ladder.ts";
import { findTarget } from "./manifest.ts";
import { prefillSizes } from "./open_loop.ts";
import type { Fallback, Way } from "./schema.ts";
import type { TargetChoice } from "./target.ts";

/** What to try first, and what is left if that fails. */
export interface Plan {
  readonly choice: Pick<TargetChoice, "target" | "others">;
  readonly asked: Tried["asked"];
}

const TOLD: Readonly<Record<Fallback["step"], string>> = {
  "needed-features": "uses none of the GPU's optional features",
  "short-prefill": "feeds prompts in short steps",
  "plain-loop": "decodes with the plain loop",
  "other-target": "runs another target",
  cpu: "runs on the CPU",
};

/**
 * Opens the model the first way that works, and tells of those that did not.
 *
 * @throws TabwrightError of the last way that was tried, when there is no other; its message
 *   names those before it.
 */
export async function openAnyWay(
  { choice, asked }: Plan,
  common: Attempting,
  open: typeof openWay = openWay,
): Promise<Opened & { readonly way: Way; readonly fallbacks: readonly Fallback[] }> {
  const fallbacks: Fallback[] = [];
  let others = choice.others;
  let way = wayOf({ ...asked, target: choice.target }, common);
  for (;;) {
    try {
      return { ...(await open(way, common)), way, fallbacks };
    } catch (error) {
      if (!(error instanceof TabwrightError)) throw error;
      const next = fallBack(await tried(way, error, { others, asked }, common), error.message);
      if (next === undefined) throw gaveUp(error, fallbacks);
      const taken = wayOf(next.taken, common);
      fallbacks.push({ ...next, taken });
      common.notes.push(`${TOLD[next.step]} (${taken.target}): ${error.message}`);
      others = others.filter(({ target }) => target !== taken.target);
      way = taken;
    }
  }
}

function wayOf(wanted: Way, { manifest, notes }: Attempting): Way {
  const entry = findTarget(manifest, wanted.target);
  const loop = loopOf(entry, wanted.loop);
  if (entry.execution_provider === "webgpu" && loop !== wanted.loop) {
    notes.push("decodes with the plain loop: the bundle has no graph of this model that stays on the GPU");
  }
  return { ...wanted, loop };
}

async function tried(
  way: Way,
  { code }: TabwrightError,
  { others, asked }: Pick<Tried, "others" | "asked">,
  { manifest }: Attempting,
): Promise<Tried> {
  const entry = findTarget(manifest, way.target);
  // The one that failed has been used up; where none is left, no other way of the GPU's helps.
  const gpu = entry.execution_provider === "webgpu" ? await requestAdapter().catch(() => undefined) : undefined;
  const optional = [...(gpu?.features ?? [])].some((name) => !entry.features.includes(name));
  return {
    way,
    code,
    optionalFeatures: way.device_features === "all" && optional,
    chunk: gpu ? prefillSizes(way.loop, isSoftware(gpu), way.prefill_chunk)[0] : 0,
    others,
    asked,
  };
}

function gaveUp(error: TabwrightError, fallbacks: readonly Fallback[]): TabwrightError {
  if (fallbacks.length === 0) return error;
  const before = fallbacks.map(({ failed, reason }) => `${failed.target}, ${failed.loop} loop: ${reason}`);
  return new TabwrightError(error.code, `${error.message}; before it failed: ${before.join("; ")}`, error);
}
