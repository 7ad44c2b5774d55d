import { OpfsStore } from "../runtime/store.ts";
import { FakeLocks } from "./fake_locks.ts";

/** Just enough of a FileSystemDirectoryHandle for the store. */
export class FakeDirectory {
  readonly folders = new Map<string, FakeDirectory>();
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>();
  /** Writes beyond so many bytes in all, and files where that many are stored, are refused as by the browser's quota. */
  quota = Infinity;
  /** The name of the exception that then comes: Chromium knows two. */
  told = "QuotaExceededError";
  parent: FakeDirectory | undefined;

  /** A store on this disk, as one tab opens it; tabs share their `locks`. */
  openStore(locks = new FakeLocks()): Promise<OpfsStore> {
    return OpfsStore.open(this as unknown as FileSystemDirectoryHandle, locks as unknown as LockManager);
  }

  async getDirectoryHandle(name: string): Promise<FakeDirectory> {
    const found = this.folders.get(name) ?? new FakeDirectory();
    found.parent = this;
    this.folders.set(name, found);
    return found;
  }

  async getFileHandle(name: string, options?: { create?: boolean }): Promise<unknown> {
    if (!this.files.has(name)) {
      if (!options?.create) throw new DOMException("absent", "NotFoundError");
      if (this.root.#used() >= this.root.quota) throw new DOMException("full", this.root.told);
      this.files.set(name, new Uint8Array());
    }
    return {
      getFile: async () => new File([this.files.get(name) ?? new Uint8Array()], name),
      createWritable: async () => {
        let pending = new Uint8Array();
        return {
          write: async (bytes: Uint8Array<ArrayBuffer>) => {
            if (this.root.#used() + bytes.length > this.root.quota) {
              throw new DOMException("full", this.root.told);
            }
            pending = bytes.slice();
          },
          abort: async () => undefined,
          close: async () => void this.files.set(name, pending),
        };
      },
    };
  }

  async *keys(): AsyncGenerator<string> {
    yield* this.files.keys();
  }

  async removeEntry(name: string): Promise<void> {
    if (!this.files.delete(name)) throw new DOMException("absent", "NotFoundError");
  }

  get root(): FakeDirectory {
    return this.parent?.root ?? this;
  }

  #used(): number {
    const own = [...this.files.values()].reduce((sum, file) => sum + file.length, 0);
    return [...this.folders.values()].reduce((sum, folder) => sum + folder.#used(), own);
  }
}
