import { Connection, type Transport } from "./connection.ts";
import { TabwrightError } from "./errors.ts";

/** Bytes `start` to `end` (exclusive) of a file of `size` bytes. */
export interface ByteRange {
  readonly start: number;
  readonly end: number;
  readonly size: number;
}

/** The server knows no ranges: asked for a part of a file, it sends all of it. */
export class RangeIgnored extends Error {}

/**
 * Streams a byte range. A server that ignores Range and sends the whole file is
 * accepted unless `strict`: the bytes around the range are dropped.
 *
 * @param onReceived told every byte that came over the wire, dropped ones too.
 * @throws RangeIgnored when `strict`, before any byte of the body is read; TabwrightError
 *   `file-missing`, `server-busy`, `http-error`, `size-mismatch`, `truncated`, `stalled`,
 *   `network` or `aborted`; each names `url`.
 */
export async function* fetchRange(
  url: string,
  range: ByteRange,
  transport: Transport,
  onReceived: (bytes: number) => void,
  strict = false,
): AsyncGenerator<Uint8Array> {
  const whole = range.start === 0 && range.end === range.size;
  const headers: Record<string, string> = whole ? {} : { Range: `bytes=${range.start}-${range.end - 1}` };
  // The store is the cache: HTTP's own would hold a second copy of the weights.
  const connection = await Connection.open(url, { headers, cache: "no-store" }, transport);
  try {
    let position = firstByte(connection.response, url, range);
    if (strict && connection.response.status === 200 && !whole) throw new RangeIgnored(url);
    for await (const bytes of connection.body()) {
      onReceived(bytes.length);
      const from = Math.max(0, range.start - position);
      const to = Math.min(bytes.length, range.end - position);
      position += bytes.length;
      if (position > range.size) {
        throw new TabwrightError("size-mismatch", `${url}: longer than the ${range.size} bytes of the manifest`);
      }
      if (to > from) yield bytes.subarray(from, to);
      // Nothing after a range is wanted; a whole file is read to its end, to see that it ends.
      if (position >= range.end && !whole) return;
    }
    if (position < range.end) {
      throw new TabwrightError("truncated", `${url}: ended at byte ${position}, before ${range.end}`);
    }
  } finally {
    connection.close();
  }
}

/** The position of the body's first byte, once status and headers are as they must be. */
function firstByte(response: Response, url: string, range: ByteRange): number {
  if (response.status === 200) return 0;
  if (response.status !== 206) throw httpError(response, url);
  const header = response.headers.get("Content-Range") ?? "";
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(header);
  if (Number(match?.[1]) !== range.start || Number(match?.[2]) !== range.end - 1) {
    throw new TabwrightError("http-error", `${url}: asked for ${range.start}-${range.end - 1}, got '${header}'`);
  }
  if (match?.[3] !== "*" && Number(match?.[3]) !== range.size) {
    throw new TabwrightError("size-mismatch", `${url}: ${match?.[3]} bytes, ${range.size} in the manifest`);
  }
  return range.start;
}

const MISSING: ReadonlySet<number> = new Set([404, 410]);
/** What a server or a gateway says when it may do better in a moment (RFC 9110, RFC 6585). */
const BUSY: ReadonlySet<number> = new Set([429, 502, 503, 504]);

function httpError(response: Response, url: string): TabwrightError {
  const { status } = response;
  const code = MISSING.has(status) ? "file-missing" : BUSY.has(status) ? "server-busy" : "http-error";
  return new TabwrightError(code, `${url}: the server answered ${status}`);
}

/**
 * Fetches a small file whole, asking the server whether a cached copy is still right.
 *
 * @param limit more bytes than this are refused.
 * @throws TabwrightError as {@link fetchRange} does.
 */
export async function fetchSmall(
  url: string,
  limit: number,
  transport: Transport,
): Promise<Uint8Array<ArrayBuffer>> {
  const connection = await Connection.open(url, { cache: "no-cache" }, transport);
  try {
    if (connection.response.status !== 200) throw httpError(connection.response, url);
    const parts: Uint8Array<ArrayBuffer>[] = [];
    let size = 0;
    for await (const bytes of connection.body()) {
      size += bytes.length;
      if (size > limit) throw new TabwrightError("size-mismatch", `${url}: longer than ${limit} bytes`);
      parts.push(bytes);
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  } finally {
    connection.close();
  }
}

/**
 * Cuts a stream into pieces of the given lengths. After the last piece the stream
 * is still read to its end.
 */
export async function* cut(
  stream: AsyncIterable<Uint8Array>,
  lengths: readonly number[],
): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let index = 0;
  let piece = new Uint8Array(lengths[0] ?? 0);
  let filled = 0;
  for await (let bytes of stream) {
    while (bytes.length > 0) {
      const taken = bytes.subarray(0, piece.length - filled);
      piece.set(taken, filled);
      filled += taken.length;
      bytes = bytes.subarray(taken.length);
      if (filled < piece.length) continue;
      yield piece;
      piece = new Uint8Array(lengths[++index] ?? 0);
      filled = 0;
    }
  }
}
