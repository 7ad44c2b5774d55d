import { describe, expect, test } from "vitest";

import { cut, fetchRange, fetchSmall } from "../runtime/fetch.ts";
import { BASE, bytesOf, FakeServer } from "./server.ts";

const URL_ = `${BASE}f`;
const CONTENT = bytesOf(100);

function served(): FakeServer {
  const server = new FakeServer();
  server.files.set("f", CONTENT);
  return server;
}

async function read(server: FakeServer, start: number, end: number, size = 100, options = {}) {
  const got: number[] = [];
  let received = 0;
  const range = { start, end, size };
  for await (const bytes of fetchRange(URL_, range, server.transport(options), (n) => (received += n))) {
    got.push(...bytes);
  }
  return { got, received };
}

describe("fetchRange", () => {
  test("asks for the whole file without a Range header", async () => {
    const server = served();
    expect((await read(server, 0, 100)).got).toEqual([...CONTENT]);
    expect(server.requests).toEqual([{ path: "f", range: undefined }]);
  });

  test("asks for a part with one, its end inclusive", async () => {
    const server = served();
    expect((await read(server, 20, 50)).got).toEqual([...CONTENT.subarray(20, 50)]);
    expect(server.requests).toEqual([{ path: "f", range: "bytes=20-49" }]);
  });

  test("takes its part out of a 200, and counts what came over the wire", async () => {
    const server = served();
    server.ignoreRange = true;
    const { got, received } = await read(server, 20, 50);
    expect(got).toEqual([...CONTENT.subarray(20, 50)]);
    expect(received).toBe(56); // Pieces of 7, up to the one that holds byte 49.
  });

  const faults: [string, string, (server: FakeServer) => void][] = [
    ["another range", "http-error", (server) => (server.contentRange = "bytes 0-29/100")],
    ["no Content-Range", "http-error", (server) => (server.contentRange = "")],
    ["another size", "size-mismatch", (server) => (server.contentRange = "bytes 20-49/99")],
    ["an early end", "truncated", (server) => (server.truncateTo = 10)],
    ["a broken connection", "network", (server) => (server.breakAfter = { bytes: 10, times: 1 })],
    ["a missing file", "file-missing", (server) => server.files.clear()],
    ["no server", "network", (server) => (server.online = false)],
  ];
  test.each(faults)("refuses %s as %s", async (_, code, spoil) => {
    const server = served();
    spoil(server);
    await expect(read(server, 20, 50)).rejects.toMatchObject({ code, message: expect.stringContaining(URL_) });
  });

  test("refuses a file that is longer than it should be", async () => {
    await expect(read(served(), 0, 90, 90)).rejects.toMatchObject({ code: "size-mismatch" });
  });

  test("gives up a server that falls silent", async () => {
    const server = served();
    server.silent = true;
    await expect(read(server, 0, 100, 100, { stallMs: 20 })).rejects.toMatchObject({ code: "stalled" });
  });

  test("stops on request, with the reason as its cause", async () => {
    const server = served();
    server.silent = true;
    const controller = new AbortController();
    const reading = read(server, 0, 100, 100, { signal: controller.signal });
    controller.abort();
    await expect(reading).rejects.toMatchObject({ code: "aborted" });
  });
});

describe("fetchSmall", () => {
  test("reads up to its limit", async () => {
    expect([...(await fetchSmall(URL_, 100, served().transport()))]).toEqual([...CONTENT]);
    await expect(fetchSmall(URL_, 99, served().transport())).rejects.toMatchObject({ code: "size-mismatch" });
  });
});

describe("cut", () => {
  async function* pieces(size: number) {
    for (let i = 0; i < CONTENT.length; i += size) yield CONTENT.subarray(i, i + size);
  }

  test.each([1, 7, 30, 31, 100])("pieces of %i into chunks", async (size) => {
    const chunks: Uint8Array[] = [];
    for await (const chunk of cut(pieces(size), [30, 30, 30, 10])) chunks.push(chunk);
    expect(chunks.map((chunk) => chunk.length)).toEqual([30, 30, 30, 10]);
    expect(chunks.flatMap((chunk) => [...chunk])).toEqual([...CONTENT]);
  });
});
