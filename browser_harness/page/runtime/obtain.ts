import { PhaseClock } from "./clock.ts";
import type { Transport } from "./connection.ts";
import { sha256 } from "./digest.ts";
import { type ErrorCode, TabwrightError, throwIfAborted } from "./errors.ts";
import { cut, fetchRange, RangeIgnored } from "./fetch.ts";
import { type BundleFile, type Chunk, chunksOf } from "./manifest.ts";
import { missingRuns, type Run, type Segment, segmentsOf } from "./segments.ts";
import type { ChunkStore } from "./store.ts";

const PARALLEL_REQUESTS = 3;
/** A request asks for so much of a file: one shard then comes over several connections. */
const SEGMENT_BYTES = 32 << 20;
const PARALLEL_CHECKS = 4;
/** Waits before a broken connection or a busy server is tried again, in milliseconds. */
const RETRY_MS: readonly number[] = [250, 1000];
const PASSING: ReadonlySet<ErrorCode> = new Set<ErrorCode>(["network", "truncated", "server-busy"]);

export type ProgressPhase = "manifest" | "stored" | "download" | "session" | "check";

/** `done` and `total` are bytes of all the files that the load needs. */
export interface Progress {
  readonly phase: ProgressPhase;
  readonly done: number;
  readonly total: number;
  readonly file: string;
  /** While downloading: the mean rate since the first byte came, and what is left at that rate. */
  readonly bytesPerSecond?: number;
  readonly secondsLeft?: number;
}

export interface ObtainOptions {
  /** URL of the folder that the files' paths are relative to. */
  readonly base: string;
  readonly chunkSize: number;
  readonly store: ChunkStore;
  readonly transport: Transport;
  /** Receives a sentence for whatever could not be done as asked. */
  readonly notes: string[];
  readonly onProgress: (progress: Progress) => void;
  /** What one request asks for; 32 MiB by default. */
  readonly segmentBytes?: number;
}

/** What is wanted before the rest, and who is told when it is there. */
export interface Early {
  readonly first: (file: BundleFile) => boolean;
  readonly then: (files: ReadonlyMap<string, Blob>) => void;
}

/** Brings files to this device, verified chunk by chunk, and tells what that cost. */
export class Obtainer {
  readonly fetchClock = new PhaseClock();
  readonly verifyClock = new PhaseClock();
  readonly storeClock = new PhaseClock();
  bytesFetched = 0;
  bytesFromStore = 0;

  readonly #base: string;
  readonly #chunkSize: number;
  readonly #store: ChunkStore;
  readonly #transport: Transport;
  readonly #stop = new AbortController();
  readonly #notes: string[];
  readonly #onProgress: (progress: Progress) => void;
  readonly #chunks = new Map<string, Blob>();
  readonly #segmentBytes: number;
  /** Downloads of files whose server knows no ranges, by path. */
  readonly #entire = new Map<string, Promise<void>>();
  #full = false;
  #done = 0;
  #total = 0;

  constructor(options: ObtainOptions) {
    this.#base = options.base;
    this.#chunkSize = options.chunkSize;
    this.#store = options.store;
    this.#notes = options.notes;
    this.#onProgress = options.onProgress;
    this.#segmentBytes = options.segmentBytes ?? SEGMENT_BYTES;
    const { signal } = options.transport;
    this.#transport = {
      ...options.transport,
      signal: signal ? AbortSignal.any([signal, this.#stop.signal]) : this.#stop.signal,
    };
  }

  /** Whether everything obtained so far will be there at the next visit. */
  get lasting(): boolean {
    return this.#store.lasting && !this.#full;
  }

  /**
   * The files by path. A blob made of stored chunks is read from disk when used.
   *
   * @throws TabwrightError `chunk-corrupt` naming the file, or what `fetchRange` throws.
   */
  async obtain(files: readonly BundleFile[], early?: Early): Promise<Map<string, Blob>> {
    this.#done = 0;
    this.#total = files.reduce((sum, file) => sum + file.size, 0);
    const first = files.filter((file) => early?.first(file));
    const before = await this.#bring(first);
    early?.then(before);
    const rest = await this.#bring(files.filter((file) => !before.has(file.path)));
    return new Map([...before, ...rest]);
  }

  async #bring(files: readonly BundleFile[]): Promise<Map<string, Blob>> {
    const planned = files.map((file) => ({ file, chunks: chunksOf(file, this.#chunkSize) }));
    const all = planned.flatMap(({ file, chunks }) => chunks.map((chunk) => ({ file, chunk })));
    await this.#inParallel(all, PARALLEL_CHECKS, ({ file, chunk }) => this.#recall(file, chunk));

    const incomplete = planned
      .flatMap(({ file, chunks }) => segmentsOf(file, chunks, this.#chunkSize, this.#segmentBytes))
      .filter(({ chunks }) => chunks.some(({ digest }) => !this.#chunks.has(digest)));
    await this.#inParallel(incomplete, PARALLEL_REQUESTS, (segment) => this.#complete(segment));

    return new Map(
      planned.map(({ file, chunks }) => {
        const parts = chunks.map((chunk) => this.#chunks.get(chunk.digest) as Blob);
        return [file.path, new Blob(parts, { type: file.media_type })];
      }),
    );
  }

  /** Takes a chunk from the store if it is there and still whole. */
  async #recall(file: BundleFile, chunk: Chunk): Promise<void> {
    throwIfAborted(this.#transport.signal);
    // Of an earlier call, for another target: what this visit verified stays verified.
    if (this.#chunks.has(chunk.digest)) return this.#advance("stored", file, chunk);
    const blob = await this.#store.get(chunk.digest);
    if (blob?.size !== chunk.length) return;
    const digest = await this.verifyClock.time(async () => sha256(await blob.arrayBuffer()));
    // A damaged copy counts as missing: it is fetched and written anew.
    if (digest !== chunk.digest) return;
    this.#chunks.set(chunk.digest, blob);
    this.bytesFromStore += chunk.length;
    this.#advance("stored", file, chunk);
  }

  /** Fetches what is missing of a segment, unless another tab does: then takes it from the store. */
  #complete({ file, chunks, whole }: Segment): Promise<void> {
    const { signal } = this.#transport;
    return this.#store.whileFetching(chunks[0]?.digest as string, signal, async () => {
      for (const chunk of chunks) if (!this.#chunks.has(chunk.digest)) await this.#recall(file, chunk);
      try {
        for (const run of missingRuns(file, chunks, this.#chunks)) await this.#download(run, !whole);
      } catch (error) {
        if (!(error instanceof RangeIgnored)) throw error;
        await this.#downloadEntire(file);
      }
    });
  }

  /** Fetches a file by one request for all of it: its segments share that. */
  async #downloadEntire(file: BundleFile): Promise<void> {
    const download = async () => {
      const chunks = chunksOf(file, this.#chunkSize);
      for (const run of missingRuns(file, chunks, this.#chunks)) await this.#download(run, false);
    };
    const shared = this.#entire.get(file.path) ?? download();
    this.#entire.set(file.path, shared);
    await shared;
  }

  /** Downloads a run; after a fault that may pass goes on from the first chunk not yet kept. */
  async #download({ file, chunks }: Run, strict: boolean): Promise<void> {
    let kept = 0;
    for (const wait of [...RETRY_MS, undefined]) {
      try {
        return await this.#downloadOnce(file, chunks.slice(kept), strict, () => kept++);
      } catch (error) {
        const passing = error instanceof TabwrightError && PASSING.has(error.code);
        if (!passing || wait === undefined) throw error;
        await new Promise((resolve) => setTimeout(resolve, wait));
      }
    }
  }

  async #downloadOnce(
    file: BundleFile,
    chunks: readonly Chunk[],
    strict: boolean,
    onKept: () => void,
  ): Promise<void> {
    const [first, last] = [chunks[0], chunks.at(-1)];
    if (first === undefined || last === undefined) return;
    const range = { start: first.offset, end: last.offset + last.length, size: file.size };
    const url = new URL(file.path, this.#base).href;
    const body = fetchRange(url, range, this.#transport, (bytes) => (this.bytesFetched += bytes), strict);
    const pieces = cut(body, chunks.map((chunk) => chunk.length));
    // One chunk is verified and stored while the next one downloads; never more, so
    // that a slow disk holds the download back instead of filling memory.
    let keeping: Promise<void> = Promise.resolve();
    try {
      for (const chunk of chunks) {
        const { value } = await this.fetchClock.time(() => pieces.next());
        await keeping;
        keeping = this.#keep(file, chunk, value as Uint8Array<ArrayBuffer>).then(onKept);
        keeping.catch(() => undefined); // Awaited in the next turn or below: not unhandled.
      }
      await this.fetchClock.time(() => pieces.next()); // A file that is too long shows here.
    } finally {
      await pieces.return(undefined);
      await keeping;
    }
  }

  async #keep(file: BundleFile, chunk: Chunk, bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    if ((await this.verifyClock.time(() => sha256(bytes))) !== chunk.digest) {
      const last = chunk.offset + chunk.length - 1;
      throw new TabwrightError(
        "chunk-corrupt",
        `${file.path}: bytes ${chunk.offset} to ${last} are not those of the manifest`,
      );
    }
    this.#chunks.set(chunk.digest, await this.storeClock.time(() => this.#put(chunk.digest, bytes)));
    this.#advance("download", file, chunk);
  }

  async #put(digest: string, bytes: Uint8Array<ArrayBuffer>): Promise<Blob> {
    if (!this.#full) {
      try {
        return await this.#store.put(digest, bytes);
      } catch (error) {
        if (!(error instanceof TabwrightError && error.code === "quota-exceeded")) throw error;
        this.#full = true;
        this.#notes.push(`not everything is kept for the next visit: ${error.message}`);
      }
    }
    return new Blob([bytes]);
  }

  #advance(phase: ProgressPhase, file: BundleFile, chunk: Chunk): void {
    this.#done += chunk.length;
    const [done, total] = [this.#done, this.#total];
    const bytesPerSecond = this.fetchClock.ms > 0 ? (1000 * this.bytesFetched) / this.fetchClock.ms : 0;
    const pace =
      phase === "download" && bytesPerSecond > 0
        ? { bytesPerSecond, secondsLeft: (total - done) / bytesPerSecond }
        : {};
    this.#onProgress({ phase, done, total, file: file.path, ...pace });
  }

  /** Runs `work` over `items`, at most `width` at a time; the first failure stops the rest. */
  async #inParallel<T>(
    items: readonly T[],
    width: number,
    work: (item: T) => Promise<void>,
  ): Promise<void> {
    const queue = items.values();
    const lane = async () => {
      for (const item of queue) await work(item);
    };
    const lanes = Array.from({ length: width }, lane);
    try {
      await Promise.all(lanes);
    } catch (error) {
      this.#stop.abort();
      await Promise.allSettled(lanes);
      throw error;
    }
  }
}
