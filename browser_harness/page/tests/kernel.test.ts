import { resolveObjectURL } from "node:buffer";

import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { Heap } from "../runtime/heap.ts";
import { Kernel } from "../runtime/kernel.ts";
import type { OrtModule } from "../runtime/ort_module.ts";
import { FakeModule } from "./fake_module.ts";
import { ThreadWorker } from "./thread_worker.ts";

let module: FakeModule;
let heap: Heap;
beforeEach(() => {
  module = new FakeModule();
  heap = new Heap(module as unknown as OrtModule);
});

describe("room", () => {
  test("is in parts that each begin where vectors may, and grows when more is asked for", async () => {
    const kernel = await Kernel.open(heap, 1);
    const [a, b, c] = kernel.room([5, 64, 1]) as [number, number, number];
    expect([b - a, c - b]).toEqual([64, 64]);
    expect(kernel.room([3])).toEqual([a]);
    const [more] = kernel.room([193]) as [number];
    expect(module.allocated.get(more)).toBe(256);
    expect(module.allocated.size).toBe(2);
    kernel.dispose();
    kernel.dispose();
    expect(module.allocated.size).toBe(1);
  });

  test("that the job does not find is told", async () => {
    module._malloc = () => 0;
    await expect(Kernel.open(heap, 1)).rejects.toMatchObject({ code: "session-failed" });
  });
});

describe("threads", () => {
  beforeEach(() => void vi.stubGlobal("Worker", ThreadWorker));
  afterEach(() => {
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
    expect(ThreadWorker.running.size).toBe(0);
  });

  test("start from a script that is not kept", async () => {
    const made = vi.spyOn(URL, "createObjectURL");
    (await Kernel.open(heap, 2)).dispose();
    expect(made).toHaveBeenCalledTimes(1);
    expect(resolveObjectURL(made.mock.results[0]?.value as string)).toBeUndefined();
  });

  test("none but this one needs no worker", async () => {
    vi.stubGlobal("Worker", undefined);
    await Kernel.open(heap, 1);
  });

  test("of which one does not start are told, and none is left", async () => {
    let count = 0;
    vi.stubGlobal("Worker", class extends ThreadWorker {
      constructor(url: string) {
        super(url);
        if (count++ === 1) this.postMessage = () => void queueMicrotask(() => this.onerror?.({ message: "blocked" }));
      }
    });
    await expect(Kernel.open(heap, 4)).rejects.toThrow("a thread of the kernel did not start: blocked");
    expect([count, ThreadWorker.running.size, module.allocated.size]).toEqual([3, 0, 1]);
  });

  test("that a page may not have are told", async () => {
    vi.stubGlobal("Worker", class {
      constructor() {
        throw new Error("a policy forbids workers");
      }
    });
    await expect(Kernel.open(heap, 2)).rejects.toThrow("a policy forbids workers");
    expect(module.allocated.size).toBe(1);
  });

  test("whose kernel does not start are told", { timeout: 10_000 }, async () => {
    vi.stubGlobal("Worker", class extends ThreadWorker {
      override postMessage(given: object): void {
        super.postMessage({ ...given, memory: "none" });
      }
    });
    const opening = Kernel.open(heap, 2);
    const waiting = new Promise((_, reject) => setTimeout(() => reject(new Error("nothing was told")), 3000));
    try {
      await expect(Promise.race([opening, waiting])).rejects.toThrow("a thread of the kernel did not start");
      expect([ThreadWorker.running.size, module.allocated.size]).toEqual([0, 1]);
    } finally {
      for (const worker of ThreadWorker.running) worker.terminate();
    }
  });
});
