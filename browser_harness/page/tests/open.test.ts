import { afterEach, expect, test, vi } from "vitest";

import { load } from "../runtime/open.ts";
import { BASE } from "./server.ts";

const MODEL = vi.hoisted(() => ({ info: {} }));

vi.mock("../runtime/load.ts", () => ({ loadHere: async () => MODEL }));

afterEach(() => void vi.unstubAllGlobals());

test("a browser that will not be asked to keep what is stored costs no model", async () => {
  const persist = vi.fn(async () => {
    throw new TypeError("not in this window");
  });
  vi.stubGlobal("location", { href: BASE });
  vi.stubGlobal("navigator", { storage: { persist } });
  expect(await load("manifest.json", { worker: false })).toBe(MODEL);
  expect(persist).toHaveBeenCalledTimes(1);
});
