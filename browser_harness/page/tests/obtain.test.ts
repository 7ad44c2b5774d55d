import { expect, test, vi } from "vitest";

import { Obtainer, type Progress } from "../runtime/obtain.ts";
import { type ChunkStore, MemoryStore } from "../runtime/store.ts";
import { FakeLocks } from "./fake_locks.ts";
import { FakeDirectory } from "./fake_opfs.ts";
import { BASE, bytesOf, describeFile, FakeServer, hex } from "./server.ts";

const CHUNK = 16;
const CONTENTS = new Map([
  ["a", bytesOf(100, 1)],
  ["b", bytesOf(40, 2)],
  ["empty", new Uint8Array()],
]);
const FILES = Array.from(CONTENTS, ([path, bytes]) => describeFile(path, bytes, CHUNK));

class Scene {
  readonly server = new FakeServer();
  readonly disk = new FakeDirectory();
  notes: string[] = [];
  progress: Progress[] = [];
  heard: () => void = () => undefined;

  constructor() {
    for (const [path, bytes] of CONTENTS) this.server.files.set(path, bytes);
  }

  async obtainer(options: { store?: ChunkStore; signal?: AbortSignal; segmentBytes?: number } = {}): Promise<Obtainer> {
    return new Obtainer({
      base: BASE,
      chunkSize: CHUNK,
      store: options.store ?? (await this.disk.openStore()),
      transport: this.server.transport(options.signal ? { signal: options.signal } : {}),
      notes: this.notes,
      onProgress: (progress) => {
        this.progress.push(progress);
        this.heard();
      },
      ...(options.segmentBytes === undefined ? {} : { segmentBytes: options.segmentBytes }),
    });
  }

  async chunks(): Promise<Map<string, Uint8Array<ArrayBuffer>>> {
    const root = await this.disk.getDirectoryHandle("tabwright");
    return (await root.getDirectoryHandle("chunks")).files;
  }
}

async function expectContents(files: Map<string, Blob>, count = CONTENTS.size): Promise<void> {
  expect(files.size).toBe(count);
  for (const [path, blob] of files) {
    expect(new Uint8Array(await blob.arrayBuffer())).toEqual(CONTENTS.get(path));
  }
}

test("a cold load fetches each file once and keeps its chunks by digest", async () => {
  const scene = new Scene();
  const obtainer = await scene.obtainer();
  await expectContents(await obtainer.obtain(FILES));
  const asked = scene.server.requests.map(({ path, range }) => [path, range]);
  expect(asked.sort()).toEqual([["a", undefined], ["b", undefined]]);
  expect(obtainer).toMatchObject({ bytesFetched: 140, bytesFromStore: 0, lasting: true });
  for (const [name, bytes] of await scene.chunks()) expect(hex(bytes)).toBe(name);
  expect(scene.progress.at(-1)).toMatchObject({ phase: "download", done: 140, total: 140 });
});

test("a warm load asks the server for nothing", async () => {
  const scene = new Scene();
  await (await scene.obtainer()).obtain(FILES);
  scene.server.online = false;
  const warm = await scene.obtainer();
  await expectContents(await warm.obtain(FILES));
  expect(warm).toMatchObject({ bytesFetched: 0, bytesFromStore: 140 });
});

test("missing and damaged chunks are fetched by runs, and written anew", async () => {
  const scene = new Scene();
  await (await scene.obtainer()).obtain(FILES);
  const chunks = await scene.chunks();
  const [, second, third, , fifth] = FILES[0]?.chunks ?? [];
  chunks.delete(second as string);
  chunks.set(third as string, bytesOf(16, 9));
  chunks.set(fifth as string, bytesOf(3, 9));
  scene.server.requests.length = 0;

  await expectContents(await (await scene.obtainer()).obtain(FILES));
  expect(scene.server.requests).toEqual([
    { path: "a", range: "bytes=16-47" },
    { path: "a", range: "bytes=64-79" },
  ]);
  for (const [name, bytes] of chunks) expect(hex(bytes)).toBe(name);
});

test("a changed file is refused by name, and its bad chunk is not kept", async () => {
  const scene = new Scene();
  const bad = bytesOf(100, 1);
  bad[50] = (bad[50] as number) ^ 1;
  scene.server.files.set("a", bad);
  const loading = (await scene.obtainer()).obtain(FILES);
  await expect(loading).rejects.toMatchObject({ code: "chunk-corrupt", message: expect.stringMatching(/^a: bytes 48 to 63/) });
  for (const [name, bytes] of await scene.chunks()) expect(hex(bytes)).toBe(name);
});

test("a broken connection is taken up where it broke", async () => {
  const scene = new Scene();
  scene.server.breakAfter = { bytes: 39, times: 1 };
  await expectContents(await (await scene.obtainer()).obtain(FILES.slice(0, 1)), 1);
  expect(scene.server.requests.map(({ range }) => range)).toEqual([undefined, "bytes=32-99"]);
});

test("a busy server is asked again, and refused by its own code when it stays so", async () => {
  const scene = new Scene();
  scene.server.statuses = [503, 429];
  await expectContents(await (await scene.obtainer()).obtain(FILES.slice(0, 1)), 1);
  expect(scene.server.requests).toHaveLength(3);
  scene.server.statuses = [503, 503, 503, 503];
  const loading = (await scene.obtainer({ store: new MemoryStore() })).obtain(FILES.slice(0, 1));
  await expect(loading).rejects.toMatchObject({ code: "server-busy" });
  expect(scene.server.requests).toHaveLength(6);
});

test("a file that always ends early is refused after three attempts", async () => {
  const scene = new Scene();
  scene.server.truncateTo = 5;
  await expect((await scene.obtainer()).obtain(FILES.slice(0, 1))).rejects.toMatchObject({ code: "truncated" });
  expect(scene.server.requests).toHaveLength(3);
});

test.each(["QuotaExceededError", "AbortError"])("a full disk is noted, and the load goes on from memory: %s", async (told) => {
  const scene = new Scene();
  scene.disk.quota = 50;
  scene.disk.told = told;
  const obtainer = await scene.obtainer();
  await expectContents(await obtainer.obtain(FILES));
  expect(obtainer.lasting).toBe(false);
  expect(scene.notes).toEqual([expect.stringContaining("not everything is kept")]);
  expect((await scene.chunks()).size).toBe(3);
});

test("without a lasting store everything stays in memory", async () => {
  const scene = new Scene();
  const obtainer = await scene.obtainer({ store: new MemoryStore() });
  await expectContents(await obtainer.obtain(FILES));
  expect(obtainer.lasting).toBe(false);
});

test("one failure stops the other downloads", async () => {
  const scene = new Scene();
  scene.server.files.delete("b");
  scene.server.piece = 1;
  const obtainer = await scene.obtainer();
  await expect(obtainer.obtain(FILES)).rejects.toMatchObject({ code: "file-missing" });
  // All of "a" is 100 bytes.
  expect(obtainer.bytesFetched).toBeLessThan(100);
});

const SEGMENTS = ["bytes=0-31", "bytes=32-63", "bytes=64-95", "bytes=96-99"];

test("a large file comes in ranges, several at a time", async () => {
  const scene = new Scene();
  let [under, most] = [0, 0];
  const { fetch: answer, ...rest } = scene.server.transport();
  const counted: typeof fetch = async (input, init) => {
    most = Math.max(most, ++under);
    await new Promise((done) => setTimeout(done, 5));
    return await answer(input, init).finally(() => under--);
  };
  const obtainer = new Obtainer({
    base: BASE,
    chunkSize: CHUNK,
    store: await scene.disk.openStore(),
    transport: { ...rest, fetch: counted },
    notes: [],
    onProgress: () => undefined,
    segmentBytes: 2 * CHUNK,
  });
  await expectContents(await obtainer.obtain(FILES));
  const asked = (path: string) => scene.server.requests.filter((each) => each.path === path).map(({ range }) => range);
  expect(asked("a")).toEqual(SEGMENTS);
  expect(asked("b")).toEqual(["bytes=0-31", "bytes=32-39"]);
  expect(most).toBe(3);
  expect(obtainer.bytesFetched).toBe(140);
});

test("a server that knows no ranges sends each file once all the same", async () => {
  const scene = new Scene();
  scene.server.ignoreRange = true;
  const obtainer = await scene.obtainer({ segmentBytes: 2 * CHUNK });
  await expectContents(await obtainer.obtain(FILES));
  expect(obtainer.bytesFetched).toBe(140);
  expect(scene.server.requests.filter(({ path, range }) => path === "a" && !range)).toHaveLength(1);
});

test("two tabs share the ranges of a file between them", async () => {
  const scene = new Scene();
  const locks = new FakeLocks();
  const tabs = await Promise.all(
    [1, 2].map(async () => scene.obtainer({ store: await scene.disk.openStore(locks), segmentBytes: 2 * CHUNK })),
  );
  for (const files of await Promise.all(tabs.map((tab) => tab.obtain(FILES)))) await expectContents(files);
  expect(scene.server.requests).toHaveLength(6);
});

test("what is wanted early is there before anything else is asked for", async () => {
  const scene = new Scene();
  let asked: (string | undefined)[] = [];
  const early = {
    first: ({ path }: { path: string }) => path === "b",
    then: (files: ReadonlyMap<string, Blob>) => {
      expect([...files.keys()]).toEqual(["b"]);
      asked = scene.server.requests.map(({ path }) => path);
    },
  };
  await expectContents(await (await scene.obtainer()).obtain(FILES, early));
  expect(asked).toEqual(["b"]);
});

test("what was verified for one target is not read again for the next", async () => {
  const scene = new Scene();
  const obtainer = await scene.obtainer();
  await obtainer.obtain(FILES);
  (await scene.chunks()).clear();
  scene.server.online = false;
  await expectContents(await obtainer.obtain(FILES.slice(0, 1)), 1);
  expect(obtainer).toMatchObject({ bytesFetched: 140, bytesFromStore: 0 });
});

test("a load that is stopped leaves whole chunks only, and the next goes on from them", async () => {
  const scene = new Scene();
  const controller = new AbortController();
  const obtainer = await scene.obtainer({ signal: controller.signal });
  scene.heard = () => {
    if (scene.progress.length === 2) controller.abort();
  };
  await expect(obtainer.obtain(FILES)).rejects.toMatchObject({ code: "aborted" });
  const kept = await scene.chunks();
  for (const [name, bytes] of kept) expect(hex(bytes)).toBe(name);
  const bytes = [...kept.values()].reduce((sum, chunk) => sum + chunk.length, 0);
  expect(bytes).toBeGreaterThan(0);
  const next = await scene.obtainer();
  await expectContents(await next.obtain(FILES));
  expect(next).toMatchObject({ bytesFromStore: bytes, bytesFetched: 140 - bytes });
});

test("two tabs that load at once fetch each file once between them", async () => {
  const scene = new Scene();
  const locks = new FakeLocks();
  const tabs = await Promise.all([1, 2].map(async () => scene.obtainer({ store: await scene.disk.openStore(locks) })));
  const loaded = await Promise.all(tabs.map((tab) => tab.obtain(FILES)));
  for (const files of loaded) await expectContents(files);
  expect(scene.server.requests.map(({ path }) => path).sort()).toEqual(["a", "b"]);
  expect(tabs.map(({ bytesFetched }) => bytesFetched).reduce((sum, bytes) => sum + bytes)).toBe(140);
});

test("when the tab that fetches gives up, the one that waits goes on where it stopped", async () => {
  const scene = new Scene();
  const locks = new FakeLocks();
  const first = await scene.obtainer({ store: await scene.disk.openStore(locks) });
  const second = await scene.obtainer({ store: await scene.disk.openStore(locks) });
  // Three attempts of the first tab, then the connection holds.
  scene.server.breakAfter = { bytes: 20, times: 3 };
  const [gaveUp, waited] = await Promise.allSettled([first.obtain(FILES.slice(0, 1)), second.obtain(FILES.slice(0, 1))]);
  expect(gaveUp).toMatchObject({ status: "rejected", reason: { code: "network" } });
  expect(waited.status).toBe("fulfilled");
  expect(scene.server.requests.at(-1)?.range).toBe("bytes=48-99");
});

test("a download tells its rate and the time that is left at it", async () => {
  const scene = new Scene();
  let now = 1000;
  const clock = vi.spyOn(performance, "now").mockImplementation(() => now);
  const bytes = CONTENTS.get("a") as Uint8Array<ArrayBuffer>;
  let at = 0;
  // Every 5 ms 10 bytes, and none before they are asked for.
  const body = new ReadableStream<Uint8Array>(
    {
      pull(controller) {
        if (at === bytes.length) return controller.close();
        now += 5;
        controller.enqueue(bytes.slice(at, (at += 10)));
      },
    },
    { highWaterMark: 0 },
  );
  const obtainer = new Obtainer({
    base: BASE,
    chunkSize: CHUNK,
    store: new MemoryStore(),
    transport: { ...scene.server.transport(), fetch: async () => new Response(body) },
    notes: [],
    onProgress: (progress) => scene.progress.push(progress),
  });
  await obtainer.obtain(FILES.slice(0, 1)).finally(() => clock.mockRestore());
  const told = scene.progress.map(({ phase, done, bytesPerSecond, secondsLeft }) => [phase, done, bytesPerSecond, secondsLeft]);
  const left = [16, 32, 48, 64, 80, 96, 100].map((done) => ["download", done, 2000, expect.closeTo((100 - done) / 2000, 9)]);
  expect(told).toEqual(left);
});

test("stops on request", async () => {
  const scene = new Scene();
  const controller = new AbortController();
  scene.server.silent = true;
  const loading = (await scene.obtainer({ signal: controller.signal })).obtain(FILES);
  controller.abort();
  await expect(loading).rejects.toMatchObject({ code: "aborted" });
});

test("a stored manifest is found again by its address", async () => {
  const store = await new FakeDirectory().openStore();
  await store.putManifest(`${BASE}manifest.json`, bytesOf(9));
  expect(await store.getManifest(`${BASE}manifest.json`)).toEqual(bytesOf(9));
  expect(await store.getManifest(`${BASE}other.json`)).toBeUndefined();
});
