import type { ort } from "./ort.ts";

/**
 * Asks ONNX Runtime to record what a run submits to the GPU and to replay it from then on.
 *
 * onnxruntime-web 1.30 takes the option in two places. The native half records and replays,
 * which is wanted. The JavaScript half keeps the first run's bindings but lets go of their
 * buffers, and fails at the second run. It asks after the native half did, so the
 * option is there only when it is first asked for.
 */
export function withRecording(options: ort.InferenceSession.SessionOptions): ort.InferenceSession.SessionOptions {
  let asked = false;
  return Object.defineProperty(options, "enableGraphCapture", {
    enumerable: true,
    get() {
      if (asked) return undefined;
      asked = true;
      return true;
    },
  });
}
