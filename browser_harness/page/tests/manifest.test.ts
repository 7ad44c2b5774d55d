import { describe, expect, test } from "vitest";

import { chunksOf, findTarget, type Manifest, neededFiles, parseManifest } from "../runtime/manifest.ts";
import { document, seal } from "./document.ts";
import { BASE, bytesOf, describeFile } from "./server.ts";

function withStateAxis(manifest: Record<string, unknown>, axis: number | string): void {
  const { a } = manifest["targets"] as { a: { states: { shape: (number | string)[] }[] } };
  a.states[0]?.shape.push(axis);
}

function parse(bytes: Uint8Array<ArrayBuffer>): Promise<Manifest> {
  return parseManifest(bytes, `${BASE}manifest.json`);
}

describe("the seal", () => {
  test("holds for what was sealed", async () => {
    expect((await parse(seal(document()))).model.name).toBe("ünïcode ☃");
  });

  test("breaks with any flipped bit", async () => {
    const bytes = seal(document());
    for (let at = 0; at < bytes.length; at += 37) {
      const flipped = bytes.slice();
      flipped[at] = (flipped[at] as number) ^ (1 << at % 8);
      await expect(parse(flipped), `byte ${at}`).rejects.toMatchObject({ code: "seal-broken" });
    }
  });

  test("is missed when it is not there", async () => {
    const bytes = new TextEncoder().encode(JSON.stringify(document()));
    await expect(parse(bytes)).rejects.toMatchObject({ code: "seal-broken" });
  });
});

describe("a sealed manifest is refused", () => {
  const faults: Record<string, (manifest: Record<string, unknown>, files: Record<string, unknown>[]) => void> = {
    "of another format": (manifest) => (manifest["format"] = "other"),
    "of a later version": (manifest) => (manifest["version"] = 2),
    "without a chunk size": (manifest) => (manifest["chunk_size"] = 0),
    "with a path that climbs out": (_, files) => ((files[0] as { path: string }).path = "../evil"),
    "with an absolute path": (_, files) => ((files[0] as { path: string }).path = "/etc/passwd"),
    "with a URL as path": (_, files) => ((files[0] as { path: string }).path = "https://evil.test/x"),
    "with a path listed twice": (_, files) => files.push({ ...files[0] }),
    "with a negative size": (_, files) => ((files[0] as { size: number }).size = -1),
    "with too few digests": (_, files) => ((files[0] as { chunks: string[] }).chunks = []),
    "with a malformed digest": (_, files) => ((files[0] as { chunks: string[] }).chunks = ["a", "b", "c"]),
    "whose tokenizer is not listed": (manifest) => (manifest["tokenizer"] = "gone.json"),
    "whose weights are not there": (manifest) => (manifest["weights"] = {}),
    "with a state of no size": (manifest) => withStateAxis(manifest, 1.5),
    "with a state larger than memory": (manifest) => withStateAxis(manifest, 1 << 21),
    "with a state of a strange axis": (manifest) => withStateAxis(manifest, "vocabulary"),
  };
  test.each(Object.entries(faults))("%s", async (_, spoil) => {
    const manifest = document();
    spoil(manifest, manifest["files"] as Record<string, unknown>[]);
    await expect(parse(seal(manifest))).rejects.toMatchObject({ code: "manifest-invalid" });
  });
});

test("a target needs all files but types and the shards of other weights", async () => {
  const served = document();
  (served["files"] as unknown[]).push(describeFile("runtime/tabwright.d.ts", bytesOf(5), 8));
  const manifest = await parse(seal(served));
  const paths = neededFiles(manifest, findTarget(manifest, "a")).map((file) => file.path);
  expect(paths).toContain("onnx/b.onnx");
  expect(paths).toContain("onnx/a_data");
  expect(paths).not.toContain("onnx/b_data");
  expect(paths).not.toContain("runtime/tabwright.d.ts");
});

test("an unknown target is refused, naming those there are", async () => {
  const manifest = await parse(seal(document()));
  expect(() => findTarget(manifest, "c")).toThrow(/it has a, b/);
});

test("chunks cover a file, the last one shorter", () => {
  const chunks = chunksOf(describeFile("x", bytesOf(20), 8), 8);
  expect(chunks.map(({ offset, length }) => [offset, length])).toEqual([[0, 8], [8, 8], [16, 4]]);
  expect(chunksOf(describeFile("empty", new Uint8Array(), 8), 8)).toEqual([]);
});
