import type { BundleFile, Chunk } from "./manifest.ts";

/** Consecutive chunks of one file, to be fetched with one request. */
export interface Run {
  readonly file: BundleFile;
  readonly chunks: readonly Chunk[];
}

/** Chunks that are fetched by whoever holds the lock named after the first of them. */
export interface Segment {
  readonly file: BundleFile;
  readonly chunks: readonly Chunk[];
  /** Whether it is all of its file. */
  readonly whole: boolean;
}

/** `file` in pieces of about `bytes`, at the same places for every tab. */
export function segmentsOf(file: BundleFile, chunks: readonly Chunk[], chunkSize: number, bytes: number): Segment[] {
  const each = Math.max(1, Math.floor(bytes / chunkSize));
  const whole = chunks.length <= each;
  return Array.from({ length: Math.ceil(chunks.length / each) }, (_, index) => ({
    file,
    chunks: chunks.slice(index * each, (index + 1) * each),
    whole,
  }));
}

/** The maximal runs of chunks that `present` does not hold. */
export function missingRuns(
  file: BundleFile,
  chunks: readonly Chunk[],
  present: ReadonlyMap<string, Blob>,
): Run[] {
  const runs: Chunk[][] = [];
  let open = false;
  for (const chunk of chunks) {
    const missing = !present.has(chunk.digest);
    if (missing && open) runs.at(-1)?.push(chunk);
    else if (missing) runs.push([chunk]);
    open = missing;
  }
  return runs.map((run) => ({ file, chunks: run }));
}
