import { MAP_READ_MODE, USAGE } from "./gpu_usage.ts";

/** Reads a token of the GPU late: a few reads may be under way, in the order of their calls. */
export class TokenReader {
  readonly #device: GPUDevice;
  readonly #source: GPUBuffer;
  readonly #lost: Promise<never>;
  readonly #staging: readonly GPUBuffer[];
  #reads = 0;

  /**
   * @param source int64 [1, 1].
   * @param depth reads that may be under way at a time.
   */
  constructor(device: GPUDevice, source: GPUBuffer, lost: Promise<never>, depth: number) {
    this.#device = device;
    this.#source = source;
    this.#lost = lost;
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
    await Promise.race([staging.mapAsync(MAP_READ_MODE), this.#lost]);
    const [token] = new BigInt64Array(staging.getMappedRange());
    staging.unmap();
    return Number(token);
  }

  dispose(): void {
    for (const buffer of this.#staging) buffer.destroy();
  }
}
