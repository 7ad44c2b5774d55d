"use strict";

/** Describes what WebGPU, WASM and isolation offer in this browser. */
async function tabwrightProbe() {
  const adapter = (await navigator.gpu?.requestAdapter({ powerPreference: "high-performance" })) ?? null;
  const limits = {};
  // The limits are getters of the prototype: Object.keys sees none of them.
  for (const name in adapter?.limits) {
    if (typeof adapter.limits[name] === "number") limits[name] = adapter.limits[name];
  }
  const info = adapter?.info;
  const names = info && `${info.vendor} ${info.architecture} ${info.device} ${info.description}`;
  return {
    // The runtime's rule: page/runtime/device.ts.
    software: Boolean(info && (info.isFallbackAdapter || /swiftshader|llvmpipe|lavapipe|basic render/i.test(names))),
    adapter: adapter && {
      vendor: adapter.info.vendor,
      architecture: adapter.info.architecture,
      device: adapter.info.device,
      description: adapter.info.description,
      is_fallback: adapter.info.isFallbackAdapter ?? false,
      features: [...adapter.features].sort(),
      device_features: [],
      limits,
    },
    jspi: typeof WebAssembly.Suspending === "function",
    cross_origin_isolated: crossOriginIsolated,
  };
}
