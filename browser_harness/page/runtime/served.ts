import type { Transport } from "./connection.ts";
import { sha256 } from "./digest.ts";
import { TabwrightError } from "./errors.ts";
import { fetchSmall } from "./fetch.ts";
import { type BundleFile, chunksOf, type Manifest, parseManifest } from "./manifest.ts";
import type { ChunkStore } from "./store.ts";

const MANIFEST_LIMIT = 64 << 20;

/** The served manifest, or the stored one when no server can be reached. */
export async function readManifest(
  url: string,
  store: ChunkStore,
  transport: Transport,
): Promise<{ bytes: Uint8Array<ArrayBuffer>; manifest: Manifest; offline: boolean }> {
  let bytes: Uint8Array<ArrayBuffer>;
  let offline = false;
  try {
    bytes = await fetchSmall(url, MANIFEST_LIMIT, transport);
  } catch (error) {
    if (!(error instanceof TabwrightError)) throw error;
    if (error.code === "file-missing") throw new TabwrightError("manifest-missing", error.message, error);
    if (error.code !== "network") throw error;
    const stored = await store.getManifest(url);
    if (!stored) {
      throw new TabwrightError("manifest-missing", `${error.message}, and nothing is stored here`, error);
    }
    bytes = stored;
    offline = true;
  }
  return { bytes, manifest: await parseManifest(bytes, url), offline };
}

/**
 * Keeps the manifest for a visit without network, or notes that there is no room for it.
 *
 * @returns whether the store now holds another manifest for this address than before.
 */
export async function keepManifest(
  store: ChunkStore,
  url: string,
  bytes: Uint8Array<ArrayBuffer>,
  notes: string[],
): Promise<boolean> {
  const before = await store.getManifest(url);
  if (before && before.length === bytes.length && before.every((byte, at) => byte === bytes[at])) return false;
  try {
    await store.putManifest(url, bytes);
    return true;
  } catch (error) {
    if (!(error instanceof TabwrightError && error.code === "quota-exceeded")) throw error;
    notes.push(`the next visit needs the network: ${error.message}`);
    return false;
  }
}

/**
 * Checks what the browser itself fetched and runs. With the network off that is
 * out of reach for a page that no service worker serves, which is noted.
 *
 * @throws TabwrightError `chunk-corrupt` naming the file, or what `fetchSmall` throws.
 */
export async function verifyPageFiles(
  files: readonly BundleFile[],
  manifestUrl: string,
  chunkSize: number,
  transport: Transport,
  offlineNotes: string[] | undefined,
): Promise<void> {
  const checks = files.map((file) => fetchVerified(file, manifestUrl, chunkSize, transport));
  const failed = (await Promise.allSettled(checks)).flatMap((check) => (check.status === "rejected" ? [check.reason] : []));
  const outOfReach = (error: unknown) => error instanceof TabwrightError && error.code === "network";
  const worst = failed.find((error) => !offlineNotes || !outOfReach(error));
  if (worst !== undefined) throw worst;
  if (failed.length > 0) offlineNotes?.push("the page's own files could not be verified again: the network is off");
}

/**
 * A small file of the bundle, as the manifest describes it.
 *
 * @throws TabwrightError `chunk-corrupt` or `truncated` naming the file, or what `fetchSmall` throws.
 */
export async function fetchVerified(
  file: BundleFile,
  manifestUrl: string,
  chunkSize: number,
  transport: Transport,
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = await fetchSmall(new URL(file.path, manifestUrl).href, file.size, transport);
  if (bytes.length !== file.size) {
    throw new TabwrightError("truncated", `${file.path}: ${bytes.length} of ${file.size} bytes`);
  }
  for (const { offset, length, digest } of chunksOf(file, chunkSize)) {
    if ((await sha256(bytes.slice(offset, offset + length))) === digest) continue;
    throw new TabwrightError("chunk-corrupt", `${file.path}: its bytes are not those of the manifest`);
  }
  return bytes;
}
