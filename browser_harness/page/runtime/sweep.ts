import { reason, TabwrightError } from "./errors.ts";
import { parseManifest } from "./manifest.ts";
import type { ChunkStore } from "./store.ts";

/**
 * Deletes the chunks that no stored manifest names: those of a bundle that was
 * replaced, and of downloads that were given up. While any tab is loading nothing is
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
  for await (const bytes of store.manifests()) {
    for (const digest of await digestsIn(bytes)) named.add(digest);
  }
  const unnamed: string[] = [];
  for await (const digest of store.digests()) if (!named.has(digest)) unnamed.push(digest);
  for (const digest of unnamed) await store.remove(digest);
}

async function digestsIn(bytes: Uint8Array<ArrayBuffer>): Promise<readonly string[]> {
  try {
    const { files } = await parseManifest(bytes, "a stored manifest");
    return files.flatMap((file) => file.chunks);
  } catch (error) {
    // One that no load would accept any more keeps nothing alive.
    if (error instanceof TabwrightError) return [];
    throw error;
  }
}
