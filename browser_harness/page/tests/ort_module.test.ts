import { expect, test } from "vitest";

import { watched } from "../runtime/ort_module.ts";
import { FakeModule } from "./fake_module.ts";

test("a session is told what it must know before WebGPU is added to it", async () => {
  const module = new FakeModule();
  const asked: unknown[] = [];
  Object.assign(module, {
    _OrtAddSessionConfigEntry: (options: number, key: number, value: number) => asked.push([options, module.UTF8ToString(key), module.UTF8ToString(value)]),
    _OrtAppendExecutionProvider: async (...given: number[]) => {
      asked.push(given);
      return 7;
    },
  });
  Reflect.set(globalThis, "startFake", () => module);
  const source = (code: string) => `data:text/javascript,${encodeURIComponent(code)}`;
  const glue = source("export default async () => globalThis.startFake();");
  await ((await import(/* @vite-ignore */ source(watched(glue)))) as { default: (config: object) => unknown }).default({});
  Reflect.deleteProperty(globalThis, "startFake");
  const { _OrtAppendExecutionProvider: append } = module as unknown as { _OrtAppendExecutionProvider(...given: number[]): Promise<number> };
  expect(await append(3, 4, 5, 6, 1)).toBe(7);
  expect(asked).toEqual([[3, "ep.webgpuexecutionprovider.maxNumPendingDispatches", "96"], [3, 4, 5, 6, 1]]);
  expect(module.stackSave()).toBe(8);
});
