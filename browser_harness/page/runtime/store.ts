import { sha256 } from "./digest.ts";
import { reason, TabwrightError, throwIfAborted } from "./errors.ts";

const ROOT = "tabwright";
/** Tabs of one origin share one store, and agree through the lock of this name. */
const LOCK = "tabwright-store";

/**
 * Chunks by the SHA-256 of their bytes. What `get` returns may have been changed
 * on disk since: the caller verifies it.
 */
export interface ChunkStore {
  readonly lasting: boolean;
  get(digest: string): Promise<Blob | undefined>;
  /** @throws TabwrightError `quota-exceeded` when there is no room. */
  put(digest: string, bytes: Uint8Array<ArrayBuffer>): Promise<Blob>;
  getManifest(url: string): Promise<Uint8Array<ArrayBuffer> | undefined>;
  putManifest(url: string, bytes: Uint8Array<ArrayBuffer>): Promise<void>;
  /** Runs `work`, which uses stored chunks: meanwhile no tab deletes any. */
  whileUsing<T>(work: () => Promise<T>): Promise<T>;
  /** Runs `work` while no other tab runs any for the same name. */
  whileFetching<T>(name: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T>;
  /** Runs `work` unless a tab, this one too, is using stored chunks. */
  ifUnused(work: () => Promise<void>): Promise<void>;
  /** Every stored manifest, whatever its address. */
  manifests(): AsyncIterable<Uint8Array<ArrayBuffer>>;
  /** The digests of all stored chunks. */
  digests(): AsyncIterable<string>;
  remove(digest: string): Promise<void>;
  /** Whether {@link putPass} was called with `name`. */
  hasPass(name: string): Promise<boolean>;
  /** Keeps nothing but a name; where there is no room for it, it is forgotten. */
  putPass(name: string): Promise<void>;
  /** The names of all passes. */
  passes(): AsyncIterable<string>;
  removePass(name: string): Promise<void>;
}

/** Keeps nothing beyond the page; the browser may spill the blobs to disk. */
export class MemoryStore implements ChunkStore {
  readonly lasting = false;

  async get(): Promise<undefined> {}

  async put(_digest: string, bytes: Uint8Array<ArrayBuffer>): Promise<Blob> {
    return new Blob([bytes]);
  }

  async getManifest(): Promise<undefined> {}

  async putManifest(): Promise<void> {}

  whileUsing<T>(work: () => Promise<T>): Promise<T> {
    return work();
  }

  whileFetching<T>(_name: string, _signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    return work();
  }

  async ifUnused(): Promise<void> {}

  async *manifests(): AsyncGenerator<never> {}

  async *digests(): AsyncGenerator<never> {}

  async remove(): Promise<void> {}

  async hasPass(): Promise<boolean> {
    return false;
  }

  async putPass(): Promise<void> {}

  async *passes(): AsyncGenerator<never> {}

  async removePass(): Promise<void> {}
}

/**
 * One file per chunk in the origin's private file system. A chunk becomes visible
 * when its writer closes, so an interrupted write leaves nothing behind.
 */
export class OpfsStore implements ChunkStore {
  readonly lasting = true;
  readonly #chunks: FileSystemDirectoryHandle;
  readonly #manifests: FileSystemDirectoryHandle;
  readonly #passes: FileSystemDirectoryHandle;
  readonly #locks: LockManager;

  private constructor(
    chunks: FileSystemDirectoryHandle,
    manifests: FileSystemDirectoryHandle,
    passes: FileSystemDirectoryHandle,
    locks: LockManager,
  ) {
    this.#chunks = chunks;
    this.#manifests = manifests;
    this.#passes = passes;
    this.#locks = locks;
  }

  static async open(origin: FileSystemDirectoryHandle, locks: LockManager): Promise<OpfsStore> {
    const root = await origin.getDirectoryHandle(ROOT, { create: true });
    return new OpfsStore(
      await root.getDirectoryHandle("chunks", { create: true }),
      await root.getDirectoryHandle("manifests", { create: true }),
      await root.getDirectoryHandle("passes", { create: true }),
      locks,
    );
  }

  get(digest: string): Promise<Blob | undefined> {
    return read(this.#chunks, digest);
  }

  async put(digest: string, bytes: Uint8Array<ArrayBuffer>): Promise<Blob> {
    return await write(this.#chunks, digest, bytes);
  }

  async getManifest(url: string): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const file = await read(this.#manifests, await nameOf(url));
    return file && new Uint8Array(await file.arrayBuffer());
  }

  async putManifest(url: string, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    await write(this.#manifests, await nameOf(url), bytes);
  }

  whileUsing<T>(work: () => Promise<T>): Promise<T> {
    return this.#locks.request<Promise<T>>(LOCK, { mode: "shared" }, work);
  }

  async whileFetching<T>(
    name: string,
    signal: AbortSignal | undefined,
    work: () => Promise<T>,
  ): Promise<T> {
    try {
      return await this.#locks.request<Promise<T>>(`${LOCK}/${name}`, signal ? { signal } : {}, work);
    } catch (error) {
      throwIfAborted(signal); // A lock that is no longer waited for throws the signal's reason.
      throw error;
    }
  }

  async ifUnused(work: () => Promise<void>): Promise<void> {
    // Waiting for the lock would hold up every load that begins meanwhile.
    await this.#locks.request(LOCK, { ifAvailable: true }, async (lock) => {
      if (lock) await work();
    });
  }

  async *manifests(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    for await (const name of this.#manifests.keys()) {
      const file = await read(this.#manifests, name);
      if (file) yield new Uint8Array(await file.arrayBuffer());
    }
  }

  digests(): AsyncIterable<string> {
    return this.#chunks.keys();
  }

  async remove(digest: string): Promise<void> {
    await this.#chunks.removeEntry(digest);
  }

  async hasPass(name: string): Promise<boolean> {
    return (await read(this.#passes, name)) !== undefined;
  }

  async putPass(name: string): Promise<void> {
    try {
      await this.#passes.getFileHandle(name, { create: true });
    } catch (error) {
      if (!isNoRoom(error)) throw error;
    }
  }

  passes(): AsyncIterable<string> {
    return this.#passes.keys();
  }

  async removePass(name: string): Promise<void> {
    await this.#passes.removeEntry(name);
  }

  /** Deletes all of it, once no tab is loading. The folders stay: a load that waits has opened them. */
  async clear(): Promise<void> {
    await this.#locks.request(LOCK, { mode: "exclusive" }, async () => {
      for (const folder of [this.#chunks, this.#manifests, this.#passes]) {
        const names: string[] = [];
        for await (const name of folder.keys()) names.push(name);
        for (const name of names) await folder.removeEntry(name);
      }
    });
  }
}

function nameOf(url: string): Promise<string> {
  return sha256(new TextEncoder().encode(url));
}

async function read(folder: FileSystemDirectoryHandle, name: string): Promise<Blob | undefined> {
  try {
    return await (await folder.getFileHandle(name)).getFile();
  } catch (error) {
    if (error instanceof DOMException && error.name === "NotFoundError") return undefined;
    throw error;
  }
}

/**
 * What a write beyond the quota ends with. Chromium closes the pipe of a write that it refuses;
 * where the page is still sending it hears of that first, as an abort that it never asked for.
 */
const NO_ROOM: ReadonlySet<string> = new Set(["QuotaExceededError", "AbortError"]);

function isNoRoom(error: unknown): boolean {
  return error instanceof DOMException && NO_ROOM.has(error.name);
}

async function write(
  folder: FileSystemDirectoryHandle,
  name: string,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<Blob> {
  try {
    const handle = await folder.getFileHandle(name, { create: true });
    try {
      const writer = await handle.createWritable();
      try {
        await writer.write(bytes);
      } catch (error) {
        await writer.abort();
        throw error;
      }
      await writer.close();
    } catch (error) {
      // The file was there, empty, from the moment that its handle was made.
      if ((await handle.getFile()).size === 0) await folder.removeEntry(name);
      throw error;
    }
    return await handle.getFile();
  } catch (error) {
    if (isNoRoom(error)) {
      throw new TabwrightError("quota-exceeded", "the browser gives this site no more storage", error);
    }
    throw error;
  }
}

/**
 * Opens the lasting store, or a memory store with a note that tells why.
 *
 * @param wanted `none` asks for the memory store.
 */
export async function openStore(wanted: "opfs" | "none", notes: string[]): Promise<ChunkStore> {
  if (wanted === "none") return new MemoryStore();
  try {
    return await OpfsStore.open(await navigator.storage.getDirectory(), navigator.locks);
  } catch (error) {
    notes.push(`nothing is kept for the next visit: no private file system here (${reason(error)})`);
    return new MemoryStore();
  }
}

/**
 * Deletes everything that bundles of this origin have stored. Loads that are under way, in any tab,
 * are waited for; a model that is loaded needs nothing of it any more.
 *
 * @throws TabwrightError `store-failed`.
 */
export async function clearStore(): Promise<void> {
  try {
    const store = await OpfsStore.open(await navigator.storage.getDirectory(), navigator.locks);
    await store.clear();
  } catch (error) {
    throw new TabwrightError("store-failed", `what is stored could not be deleted: ${reason(error)}`, error);
  }
}
