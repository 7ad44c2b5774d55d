import { findShortfall, isSoftware } from "./device.ts";
import { TabwrightError } from "./errors.ts";
import { type Manifest, shardsOf } from "./manifest.ts";

/** The target to load, and why this one: a sentence for people. */
export interface Choice {
  readonly target: string;
  readonly because: string;
}

/**
 * Chooses what this device runs best: a hardware GPU before the CPU before a
 * software GPU; among those 16-bit activations first, then the smaller download.
 *
 * @param adapter the page's adapter, or undefined where there is none.
 * @throws TabwrightError `adapter-missing`, `feature-missing` or `limit-too-small`
 *   when no target can run here.
 */
export function chooseTarget(manifest: Manifest, adapter: GPUAdapter | undefined): Choice {
  const sizes = new Map(manifest.files.map((file) => [file.path, file.size]));
  const software = adapter !== undefined && isSoftware(adapter);
  const candidates = Object.entries(manifest.targets)
    .map(([name, entry]) => {
      const gpu = entry.execution_provider === "webgpu";
      return {
        name,
        gpu,
        shortfall: gpu ? missing(adapter, entry) : undefined,
        rank: gpu ? (software ? 2 : 0) : 1,
        wide: entry.activation_dtype === "float32" ? 1 : 0,
        bytes: shardsOf(manifest, entry).reduce((sum, path) => sum + (sizes.get(path) ?? 0), 0),
      };
    })
    .sort((a, b) => a.rank - b.rank || a.wide - b.wide || a.bytes - b.bytes);
  const best = candidates.find(({ shortfall }) => shortfall === undefined);
  if (best === undefined) {
    throw candidates[0]?.shortfall ?? new TabwrightError("target-unknown", "the bundle has no target");
  }
  // What would have been better, had the adapter sufficed.
  const passed = candidates[0]?.shortfall;
  if (best.gpu) {
    const where = software ? "an emulated GPU: the bundle has no CPU target" : "the GPU";
    return { target: best.name, because: `runs on ${where}${passed ? ` (${passed.message})` : ""}` };
  }
  const why = passed?.message ?? (software ? "the GPU is emulated in software" : "the bundle has no GPU target");
  return { target: best.name, because: `runs on the CPU: ${why}` };
}

function missing(
  adapter: GPUAdapter | undefined,
  entry: Parameters<typeof findShortfall>[1],
): TabwrightError | undefined {
  return adapter
    ? findShortfall(adapter, entry)
    : new TabwrightError("adapter-missing", "there is no WebGPU adapter");
}
