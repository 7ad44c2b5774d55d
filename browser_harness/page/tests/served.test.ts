import { expect, test } from "vitest";

import { keepManifest, readManifest, verifyPageFiles } from "../runtime/served.ts";
import { MemoryStore } from "../runtime/store.ts";
import { FakeDirectory } from "./fake_opfs.ts";
import { BASE, bytesOf, describeFile, FakeServer } from "./server.ts";

const URL_ = `${BASE}manifest.json`;
const PAGE = bytesOf(40);
const FILES = [describeFile("index.html", PAGE, 16)];

function served(): FakeServer {
  const server = new FakeServer();
  server.files.set("index.html", PAGE);
  return server;
}

test("page files that are whole pass", async () => {
  await verifyPageFiles(FILES, URL_, 16, served().transport(), undefined);
});

test.each<[string, string, (server: FakeServer) => void]>([
  ["changed", "chunk-corrupt", (server) => server.files.set("index.html", bytesOf(40, 2))],
  ["short", "truncated", (server) => server.files.set("index.html", PAGE.slice(0, 39))],
  ["long", "size-mismatch", (server) => server.files.set("index.html", bytesOf(41))],
  ["missing", "file-missing", (server) => server.files.clear()],
  ["out of reach", "network", (server) => (server.online = false)],
])("a page file that is %s is refused as %s", async (_, code, spoil) => {
  const server = served();
  spoil(server);
  const checking = verifyPageFiles(FILES, URL_, 16, server.transport(), undefined);
  await expect(checking).rejects.toMatchObject({ code, message: expect.stringContaining("index.html") });
});

test("offline, page files out of reach are noted, and changed ones still refused", async () => {
  const server = served();
  const notes: string[] = [];
  server.online = false;
  await verifyPageFiles(FILES, URL_, 16, server.transport(), notes);
  expect(notes).toHaveLength(1);
  server.online = true;
  server.files.set("index.html", bytesOf(40, 2));
  const checking = verifyPageFiles(FILES, URL_, 16, server.transport(), notes);
  await expect(checking).rejects.toMatchObject({ code: "chunk-corrupt" });
});

test("without a server or a stored copy the manifest is missing", async () => {
  const server = served();
  server.online = false;
  const reading = readManifest(URL_, new MemoryStore(), server.transport());
  await expect(reading).rejects.toMatchObject({ code: "manifest-missing" });
  server.online = true;
  const absent = readManifest(URL_, new MemoryStore(), server.transport());
  await expect(absent).rejects.toMatchObject({ code: "manifest-missing" });
});

test("a stored manifest that was changed is refused too", async () => {
  const server = served();
  server.online = false;
  const store = await new FakeDirectory().openStore();
  await store.putManifest(URL_, new TextEncoder().encode("{}"));
  await expect(readManifest(URL_, store, server.transport())).rejects.toMatchObject({ code: "seal-broken" });
});

test("a manifest that finds no room is noted", async () => {
  const disk = new FakeDirectory();
  disk.quota = 3;
  const notes: string[] = [];
  await keepManifest(await disk.openStore(), URL_, bytesOf(9), notes);
  expect(notes).toEqual([expect.stringContaining("needs the network")]);
});
