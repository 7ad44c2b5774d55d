/** ONNX Runtime asks for a weight at a time, mostly in the file's order or against it. */
const WINDOW = 16 << 20;
/** A weight, its scales and its zero points may lie in different windows. */
const WINDOWS = 3;

/** Reads a blob in large windows and keeps the last few, so that small reads cost no wait each. */
class Windows {
  readonly source: Blob;
  /** By number, the longest unused first. */
  readonly #kept = new Map<number, Promise<ArrayBuffer>>();

  constructor(source: Blob) {
    this.source = source;
  }

  /** A view of the bytes from `start` to `stop`, or to the end of the window that `start` is in. */
  async #read(start: number, stop: number): Promise<Uint8Array<ArrayBuffer>> {
    const number = Math.floor(start / WINDOW);
    const offset = start - number * WINDOW;
    const window = await this.#window(number);
    return new Uint8Array(window, offset, Math.min(stop - start, window.byteLength - offset));
  }

  /**
   * The bytes from `start` to `stop`, window by window.
   *
   * @throws RangeError when the blob ends before `stop`.
   */
  async *pieces(start: number, stop: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
    if (stop > this.source.size) throw new RangeError(`bytes up to ${stop} of a file of ${this.source.size}`);
    for (let at = start; at < stop; ) {
      const piece = await this.#read(at, stop);
      yield piece;
      at += piece.length;
    }
  }

  #window(number: number): Promise<ArrayBuffer> {
    const window =
      this.#kept.get(number) ?? this.source.slice(number * WINDOW, (number + 1) * WINDOW).arrayBuffer();
    this.#kept.delete(number);
    this.#kept.set(number, window);
    const [oldest] = this.#kept.keys();
    if (this.#kept.size > WINDOWS) this.#kept.delete(oldest as number);
    return window;
  }
}

/**
 * A blob that is read through {@link Windows}, with no "byob" reader. Chromium 156's, which
 * ONNX Runtime prefers, now and then never answers when the blob lies in several files of the
 * private file system (about one load in ten); reading through arrayBuffer() does.
 */
export class SteadyBlob extends Blob {
  readonly #windows: Windows;

  constructor(parts: readonly BlobPart[]) {
    super([...parts]);
    this.#windows = new Windows(new Blob([...parts]));
  }

  /**
   * The bytes from `start` to `stop`, in pieces.
   *
   * @throws RangeError, at the first piece, when the blob ends before `stop`.
   */
  pieces(start: number, stop: number): AsyncGenerator<Uint8Array<ArrayBuffer>, void> {
    return this.#windows.pieces(start, stop);
  }

  override slice(start = 0, end = this.size): Blob {
    const within = (at: number) => Math.min(Math.max(at < 0 ? this.size + at : at, 0), this.size);
    const first = within(start);
    return new Slice(this.#windows, first, Math.max(first, within(end))) as Pick<Blob, "size" | "stream"> as Blob;
  }

  override stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return new Slice(this.#windows, 0, this.size).stream();
  }
}

/**
 * What ONNX Runtime asks of a slice. A true Blob costs the browser half a millisecond, which
 * hundreds of weights add up to a tenth of a load.
 */
class Slice {
  readonly size: number;
  readonly #windows: Windows;
  readonly #start: number;

  constructor(windows: Windows, start: number, stop: number) {
    this.#windows = windows;
    this.#start = start;
    this.size = stop - start;
  }

  stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    const pieces = this.#windows.pieces(this.#start, this.#start + this.size);
    return new ReadableStream({
      pull: async (controller) => {
        const { value } = await pieces.next();
        if (value) controller.enqueue(value);
        else controller.close();
      },
    });
  }
}
