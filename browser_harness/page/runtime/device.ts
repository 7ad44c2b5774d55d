import { reason, TabwrightError } from "./errors.ts";
import { Loss } from "./loss.ts";
import type { TargetEntry } from "./manifest.ts";
import type { Adapter } from "./schema.ts";

/** Limits that ONNX Runtime's kernels grow into when the device offers more than the default. */
const RAISED_LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxStorageBuffersPerShaderStage",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
  "maxComputeWorkgroupSizeY",
  "maxComputeWorkgroupSizeZ",
  "maxComputeWorkgroupStorageSize",
  "maxComputeWorkgroupsPerDimension",
] as const;

/** A device made for one target. */
export interface Gpu {
  readonly device: GPUDevice;
  readonly adapter: Adapter;
  readonly software: boolean;
  /** Ends with `device-lost` what it guards. */
  readonly loss: Loss;
  /** Gives the device back; this is not a loss. */
  destroy(): void;
}

/**
 * The adapter that a page gets.
 *
 * @throws TabwrightError `adapter-missing`.
 */
export async function requestAdapter(): Promise<GPUAdapter> {
  const gpu: GPU | undefined = navigator.gpu;
  const adapter = await gpu?.requestAdapter({ powerPreference: "high-performance" });
  if (!adapter) {
    const why = gpu ? "WebGPU is there, but no adapter" : "this browser has no WebGPU";
    throw new TabwrightError("adapter-missing", why);
  }
  return adapter;
}

/** Whether the adapter computes on the CPU: right, but far too slow to chat with. */
export function isSoftware(adapter: GPUAdapter): boolean {
  const { vendor, architecture, device, description, isFallbackAdapter } = adapter.info;
  const names = [vendor, architecture, device, description].join(" ");
  return isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|basic render/i.test(names);
}

/** What keeps `target` from running on `adapter`: a typed error, or nothing. */
export function findShortfall(adapter: GPUAdapter, target: TargetEntry): TabwrightError | undefined {
  const feature = target.features.find((name) => !adapter.features.has(name));
  if (feature !== undefined) {
    return new TabwrightError("feature-missing", `the adapter has no ${feature}`);
  }
  const offered = limitsOf(adapter.limits);
  for (const [name, least] of Object.entries(target.limits)) {
    const value = offered[name] ?? 0;
    if (value < least) {
      return new TabwrightError("limit-too-small", `the adapter's ${name} is ${value}; ${least} is needed`);
    }
  }
  return undefined;
}

/**
 * Makes a device with what `target` needs.
 *
 * @param features `needed` asks for the target's features only, `all` for every one.
 * @throws TabwrightError `feature-missing`, `limit-too-small`, `adapter-missing`.
 */
export async function requestGpu(
  adapter: GPUAdapter,
  target: TargetEntry,
  features: "needed" | "all",
): Promise<Gpu> {
  const shortfall = findShortfall(adapter, target);
  if (shortfall) throw shortfall;
  const wanted = features === "all" ? [...adapter.features] : target.features;
  let device: GPUDevice;
  try {
    device = await adapter.requestDevice({
      requiredFeatures: wanted as GPUFeatureName[],
      requiredLimits: Object.fromEntries(RAISED_LIMITS.map((name) => [name, adapter.limits[name]])),
    });
  } catch (error) {
    throw new TabwrightError("adapter-missing", `the adapter gave no device: ${reason(error)}`, error);
  }
  let returned = false;
  const lost = device.lost.then((info): Promise<never> => {
    // A device given back is at its end, not lost: whoever still waits has been told.
    if (returned) return new Promise(() => undefined);
    throw new TabwrightError("device-lost", `the GPU device was lost: ${info.message || info.reason}`);
  });
  return {
    device,
    adapter: describe(adapter, device),
    software: isSoftware(adapter),
    loss: new Loss(lost),
    destroy() {
      returned = true;
      device.destroy();
    },
  };
}

/**
 * Tells a failure that only follows from a lost device: whoever uses the device may hear of
 * the loss before the page does, so that is waited for a moment.
 *
 * @throws TabwrightError `device-lost`.
 */
export async function throwIfLost(gpu: Gpu | undefined): Promise<void> {
  await gpu?.loss.guard(new Promise((resolve) => setTimeout(resolve, 500)));
}

function describe(adapter: GPUAdapter, device: GPUDevice): Adapter {
  const { vendor, architecture, device: name, description, isFallbackAdapter } = adapter.info;
  return {
    vendor,
    architecture,
    device: name,
    description,
    is_fallback: isFallbackAdapter,
    features: [...adapter.features].sort(),
    device_features: [...device.features].sort(),
    limits: limitsOf(adapter.limits),
  };
}

function limitsOf(limits: GPUSupportedLimits): Record<string, number> {
  const found: Record<string, number> = {};
  // Limits are getters of the prototype, which Object.entries does not see.
  for (const name in limits) {
    const value: unknown = Reflect.get(limits, name);
    if (typeof value === "number") found[name] = value;
  }
  return found;
}
