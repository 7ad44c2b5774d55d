import { afterEach, beforeEach, expect, test, vi } from "vitest";

import { keepManifest } from "../runtime/served.ts";
import { clearStore, type OpfsStore } from "../runtime/store.ts";
import { sweep } from "../runtime/sweep.ts";
import { document, seal } from "./document.ts";
import { FakeLocks } from "./fake_locks.ts";
import { FakeDirectory } from "./fake_opfs.ts";
import { BASE, bytesOf, hex } from "./server.ts";

const URL_ = `${BASE}manifest.json`;
const SHARED = hex(bytesOf(8, 99));

/** A bundle whose only chunks are those of `seed` and one that it shares with all others. */
function bundle(seed: number) {
  const digests = [0, 1].map((part) => hex(bytesOf(8, 10 * seed + part)));
  const files = (document()["files"] as { path: string }[]).map((file) => ({
    ...file,
    size: 24,
    chunks: [...digests, SHARED],
  }));
  return { digests, manifest: seal({ ...document(), files }) };
}

const [OLD, NEW, OTHER] = [bundle(1), bundle(2), bundle(3)];
let disk: FakeDirectory;
let locks: FakeLocks;
let store: OpfsStore;
let notes: string[];

beforeEach(async () => {
  disk = new FakeDirectory();
  locks = new FakeLocks();
  store = await disk.openStore(locks);
  notes = [];
});

afterEach(() => void vi.unstubAllGlobals());

async function keep({ digests, manifest }: typeof OLD, url = URL_): Promise<boolean> {
  for (const digest of [...digests, SHARED]) await store.put(digest, bytesOf(8));
  return await keepManifest(store, url, manifest, notes);
}

async function stored(): Promise<string[]> {
  const found: string[] = [];
  for await (const digest of store.digests()) found.push(digest);
  return found.sort();
}

test("a bundle that was replaced leaves nothing behind, and takes nothing from another", async () => {
  await keep(OTHER, `${BASE}other/manifest.json`);
  expect(await keep(OLD)).toBe(true);
  expect(await keep(NEW)).toBe(true);
  await sweep(store, notes);
  expect(await stored()).toEqual([...NEW.digests, ...OTHER.digests, SHARED].sort());
  expect(notes).toEqual([]);
});

test("chunks of a download that was given up are deleted", async () => {
  const orphan = hex(bytesOf(8, 77));
  await store.put(orphan, bytesOf(8));
  await keep(NEW);
  await sweep(store, notes);
  expect(await stored()).not.toContain(orphan);
});

test("passes of a bundle that was replaced go with it", async () => {
  const seals = [OLD, NEW].map(({ manifest }) => JSON.parse(new TextDecoder().decode(manifest)).seal as string);
  const [old, current] = seals.map((seal) => `${seal}-x`) as [string, string];
  await keep(OLD);
  await store.putPass(old);
  await keep(NEW);
  await store.putPass(current);
  await sweep(store, notes);
  expect([await store.hasPass(old), await store.hasPass(current)]).toEqual([false, true]);
});

test("nothing is deleted while another tab is loading", async () => {
  await keep(OLD);
  const tab = await disk.openStore(locks);
  await tab.whileUsing(async () => {
    await keep(NEW);
    await sweep(store, notes);
    expect(await stored()).toEqual(expect.arrayContaining(OLD.digests));
  });
  await sweep(store, notes);
  expect(await stored()).toEqual([...NEW.digests, SHARED].sort());
});

test("the same manifest again is no change", async () => {
  expect(await keep(OLD)).toBe(true);
  expect(await keep(OLD)).toBe(false);
});

test("a stored manifest that was damaged keeps nothing alive", async () => {
  await keep(OLD);
  await store.putManifest(URL_, bytesOf(30));
  await sweep(store, notes);
  expect(await stored()).toEqual([]);
});

test("what cannot be deleted is noted", async () => {
  await keep(OLD);
  await keep(NEW);
  const folder = await (await disk.getDirectoryHandle("tabwright")).getDirectoryHandle("chunks");
  folder.removeEntry = async () => {
    throw new DOMException("in use", "NoModificationAllowedError");
  };
  await sweep(store, notes);
  expect(notes).toEqual([expect.stringContaining("in use")]);
});

test("what is stored is deleted once no tab is loading, and then all of it", async () => {
  vi.stubGlobal("navigator", { storage: { getDirectory: async () => disk }, locks });
  await keep(OLD);
  await store.putPass("x");
  let finish: () => void = () => undefined;
  const loading = store.whileUsing(() => new Promise<void>((resolve) => (finish = resolve)));
  const clearing = clearStore();
  await new Promise((resolve) => setTimeout(resolve, 2));
  expect(await stored()).toEqual([...OLD.digests, SHARED].sort());
  finish();
  await Promise.all([loading, clearing]);
  expect(await stored()).toEqual([]);
  expect([await store.getManifest(URL_), await store.hasPass("x")]).toEqual([undefined, false]);
  // A store that was opened before is as good as a new one.
  expect(await keep(NEW)).toBe(true);
  expect(await stored()).toEqual([...NEW.digests, SHARED].sort());
});

test("what cannot be deleted on request is told by its code", async () => {
  const getDirectory = async () => {
    throw new DOMException("a private window", "SecurityError");
  };
  vi.stubGlobal("navigator", { storage: { getDirectory }, locks });
  const told = { code: "store-failed", message: expect.stringContaining("a private window") };
  await expect(clearStore()).rejects.toMatchObject(told);
});
