import { MAP_READ_MODE, USAGE } from "./gpu_usage.ts";
import type { Loss } from "./loss.ts";

/** Reads a token of the GPU late: a few reads may be under way, in the order of their calls. */
export class TokenReader {
  readonly #device: GPUDevice;
  readonly #source: GPUBuffer;
  readonly #loss: Loss;
  readonly #staging: readonly GPUBuffer[];
  #reads = 0;

  /**
   * @param source int64 [1, 1].
   * @param depth reads that may be under way at a time.
   */
  constructor(device: GPUDevice, source: GPUBuffer, loss: Loss, depth: number) {
    this.#device = device;
    this.#source = source;
    this.#loss = loss;
    this.#staging = Array.from({ length: depth }, () =>
      device.createBuffer({ size: source.size, usage: USAGE.MAP_READ | USAGE.COPY_DST }),
    );
  }

  /**
   * The token as it is after what was submitted before and what `encode` adds.
   *
   * @throws TabwrightError `device-lost`.
   */
  async read(encode: (encoder: GPUCommandEncoder) => void): Promise<number> {
    const staging = this.#staging[this.#reads++ % this.#staging.length] as GPUBuffer;
    const encoder = this.#device.createCommandEncoder();
    encode(encoder);
    encoder.copyBufferToBuffer(this.#source, 0, staging, 0, staging.size);
    this.#device.queue.submit([encoder.finish()]);
    await this.#loss.guard(staging.mapAsync(MAP_READ_MODE));
    const [token] = new BigInt64Array(staging.getMappedRange());
    staging.unmap();
    return Number(token);
  }

  dispose(): void {
    for (const buffer of this.#staging) buffer.destroy();
  }
}
