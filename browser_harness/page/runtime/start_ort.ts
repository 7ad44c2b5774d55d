import { ort } from "./ort.ts";

/** An Identity over one float: the least model that there is. */
const LEAST = "CAg6NwoQCgF4EgF5IghJZGVudGl0eRIBZ1oPCgF4EgoKCAgBEgQKAggBYg8KAXkSCgoICAESBAoCCAFCBAoAEA0=";

let started: Promise<void> | undefined;

/**
 * Has ONNX Runtime compile and start its WebAssembly, once per page and before the first real
 * session: the browser does that while weights come or are checked. What goes wrong here goes
 * wrong with that session too, which tells it.
 */
export function startOrt(): Promise<void> {
  started ??= start().catch(() => undefined);
  return started;
}

async function start(): Promise<void> {
  const bytes = Uint8Array.from(atob(LEAST), (letter) => letter.charCodeAt(0));
  const session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
  await session.release();
}
