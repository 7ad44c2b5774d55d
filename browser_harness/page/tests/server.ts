import { createHash } from "node:crypto";

import type { Transport } from "../runtime/connection.ts";
import type { BundleFile } from "../runtime/manifest.ts";

export const BASE = "https://bundle.test/m/";

export function hex(bytes: Uint8Array): string {
  return createHash("sha256").update(bytes).digest("hex");
}

/** `size` bytes that differ from one another and between seeds. */
export function bytesOf(size: number, seed = 1): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: size }, (_, i) => (i * 31 + seed * 17 + (i >> 8)) & 0xff);
}

export function describeFile(path: string, bytes: Uint8Array, chunkSize: number): BundleFile {
  const chunks: string[] = [];
  for (let i = 0; i < bytes.length; i += chunkSize) chunks.push(hex(bytes.subarray(i, i + chunkSize)));
  return { path, media_type: "application/octet-stream", size: bytes.length, sha256: hex(bytes), chunks };
}

export interface Request {
  readonly path: string;
  readonly range: string | undefined;
}

/** A web server in memory, whose faults are a few lines each. */
export class FakeServer {
  readonly files = new Map<string, Uint8Array<ArrayBuffer>>();
  readonly requests: Request[] = [];
  /** Answers to the next requests, before any right one. */
  statuses: number[] = [];
  ignoreRange = false;
  contentRange: string | undefined;
  /** Bodies end with an error after so many bytes, for the next so many requests. */
  breakAfter: { bytes: number; times: number } | undefined;
  /** Bodies end early without an error. */
  truncateTo: number | undefined;
  /** Bodies never bring anything. */
  silent = false;
  online = true;
  /** Size of the pieces that a body arrives in. */
  piece = 7;

  transport(options: { signal?: AbortSignal; stallMs?: number } = {}): Transport {
    return {
      fetch: (input, init) => this.#answer(String(input), init ?? {}),
      stallMs: options.stallMs ?? 1000,
      signal: options.signal,
    };
  }

  async #answer(url: string, init: RequestInit): Promise<Response> {
    init.signal?.throwIfAborted();
    if (!this.online) throw new TypeError("Failed to fetch");
    const path = url.slice(BASE.length);
    const range = new Headers(init.headers).get("Range") ?? undefined;
    this.requests.push({ path, range });
    const status = this.statuses.shift();
    if (status !== undefined) return new Response("no", { status });
    const file = this.files.get(path);
    if (!file) return new Response("no", { status: 404 });
    const asked = range && !this.ignoreRange ? /^bytes=(\d+)-(\d+)$/.exec(range) : null;
    const [start, end] = asked ? [Number(asked[1]), Number(asked[2]) + 1] : [0, file.length];
    const body = this.#body(file.slice(start, end), init.signal ?? undefined);
    if (!asked) return new Response(body, { status: 200 });
    const header = this.contentRange ?? `bytes ${start}-${end - 1}/${file.length}`;
    return new Response(body, { status: 206, headers: { "Content-Range": header } });
  }

  #body(bytes: Uint8Array<ArrayBuffer>, signal: AbortSignal | undefined): ReadableStream<Uint8Array> {
    const fault = this.breakAfter?.times ? this.breakAfter : undefined;
    if (fault) fault.times--;
    const end = Math.min(this.truncateTo ?? Infinity, fault?.bytes ?? Infinity, bytes.length);
    let at = 0;
    return new ReadableStream({
      start: (controller) => {
        signal?.addEventListener("abort", () => controller.error(signal.reason));
      },
      pull: (controller) => {
        if (this.silent) return new Promise<void>(() => undefined);
        if (at >= end) return fault ? controller.error(new TypeError("network error")) : controller.close();
        controller.enqueue(bytes.slice(at, Math.min(end, at + this.piece)));
        at += this.piece;
        return undefined;
      },
    });
  }
}
