const PIECE = 4 << 20;

/**
 * A blob whose stream has no "byob" reader. Chromium 156's, which ONNX Runtime
 * prefers, now and then never answers when the blob lies in several files of the
 * private file system (about one load in ten); reading through arrayBuffer() does.
 */
export class SteadyBlob extends Blob {
  override slice(start?: number, end?: number, type?: string): Blob {
    return new SteadyBlob([super.slice(start, end, type)]);
  }

  override stream(): ReadableStream<Uint8Array<ArrayBuffer>> {
    let offset = 0;
    return new ReadableStream({
      pull: async (controller) => {
        if (offset >= this.size) return controller.close();
        const piece = super.slice(offset, offset + PIECE);
        offset += piece.size;
        controller.enqueue(new Uint8Array(await piece.arrayBuffer()));
      },
    });
  }
}
