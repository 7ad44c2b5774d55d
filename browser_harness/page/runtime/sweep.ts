import { reason, TabwrightError } from "./errors.ts";
import { type Manifest, parseManifest } from "./manifest.ts";
import type { ChunkStore } from "./store.ts";

/**
 * Deletes the chunks that no stored manifest names, and the passes of its self-check: those
 * of a bundle that was replaced, and of downloads that were given up. While any tab is loading nothing is
 * deleted, because a first download has no stored manifest yet; a later sweep does it.
 * What cannot be deleted is noted: the model is there all the same.
 */
export async function sweep(store: ChunkStore, notes: string[]): Promise<void> {
  try {
    await store.ifUnused(() => deleteUnnamed(store));
  } catch (error) {
    notes.push(`chunks of an earlier bundle could not be deleted: ${reason(error)}`);
  }
}

async function deleteUnnamed(store: ChunkStore): Promise<void> {
  const named = new Set<string>();
  const seals = new Set<string>();
  for await (const bytes of store.manifests()) {
    const manifest = await parsed(bytes);
    if (!manifest) continue;
    for (const file of manifest.files) for (const digest of file.chunks) named.add(digest);
    seals.add(manifest.seal);
  }
  const unnamed: string[] = [];
  for await (const digest of store.digests()) if (!named.has(digest)) unnamed.push(digest);
  for (const digest of unnamed) await store.remove(digest);
  const stale: string[] = [];
  for await (const pass of store.passes()) if (!seals.has(pass.split("-")[0] as string)) stale.push(pass);
  for (const pass of stale) await store.removePass(pass);
}

async function parsed(bytes: Uint8Array<ArrayBuffer>): Promise<Manifest | undefined> {
  try {
    return await parseManifest(bytes, "a stored manifest");
  } catch (error) {
    // One that no load would accept any more keeps nothing alive.
    if (error instanceof TabwrightError) return undefined;
    throw error;
  }
}
