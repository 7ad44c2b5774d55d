import { expect, test, vi } from "vitest";

import { type Attempting, openWay } from "../runtime/attempt.ts";
import { MemoryStore } from "../runtime/store.ts";

const seen = vi.hoisted(() => ({ control: new AbortController(), freed: [] as string[], threads: 0 }));

vi.mock("../runtime/ort.ts", () => ({ ortVersion: () => "1", prepareOrt: () => undefined, usableThreads: () => 3 }));
vi.mock("../runtime/start_ort.ts", () => ({ startOrt: async () => undefined }));
vi.mock("../runtime/open_loop.ts", () => ({
  prefillSizes: () => [16],
  openLoop: async (_loop: string, { threads }: { threads: number }) => {
    seen.threads = threads;
    seen.control.abort();
    const loop = { dispose: () => void seen.freed.push("loop") };
    return { kind: "plain", loop, session: { release: async () => void seen.freed.push("session") } };
  },
}));

test("a load that is stopped while its session is made ends there, and frees it", async () => {
  const phases: string[] = [];
  const target = { graph: "g", weights: "w", execution_provider: "wasm", states: [] };
  const common = {
    manifest: { model: { vocab_size: 8 }, targets: { cpu: target }, weights: { w: { shards: [] } }, seal: "" },
    store: new MemoryStore(),
    files: async () => new Map([["g", new Blob(["graph"])]]),
    threads: undefined,
    selfCheck: true,
    memory: { growthBytes: 1, budgetBytes: Infinity },
    signal: seen.control.signal,
    onProgress: ({ phase }: { phase: string }) => phases.push(phase),
    notes: [],
  } as unknown as Attempting;
  const opening = openWay({ target: "cpu", device_features: "needed", loop: "plain" }, common);
  await expect(opening).rejects.toMatchObject({ code: "aborted" });
  expect(phases).toEqual(["session"]);
  expect(seen.freed).toEqual(["loop", "session"]);
  // As many as the page can have, whatever was asked for.
  expect(seen.threads).toBe(3);
});
