import { reason, TabwrightError } from "./errors.ts";

/** A server that brings no byte for so long is given up. */
const STALL_MS = 60_000;

export interface Transport {
  readonly fetch: typeof fetch;
  readonly stallMs: number;
  readonly signal: AbortSignal | undefined;
}

export function browserTransport(signal: AbortSignal | undefined): Transport {
  return { fetch: (input, init) => fetch(input, init), stallMs: STALL_MS, signal };
}

/**
 * One request under a watchdog, whose failures are typed: `stalled`, `aborted`,
 * or `network` for everything that the browser reports as a bare TypeError.
 */
export class Connection {
  readonly #url: string;
  readonly #transport: Transport;
  readonly #watchdog = new AbortController();
  #timer: ReturnType<typeof setTimeout> | undefined;
  #response: Response | undefined;

  private constructor(url: string, transport: Transport) {
    this.#url = url;
    this.#transport = transport;
  }

  static async open(url: string, init: RequestInit, transport: Transport): Promise<Connection> {
    const connection = new Connection(url, transport);
    const own = connection.#watchdog.signal;
    const signal = transport.signal ? AbortSignal.any([transport.signal, own]) : own;
    connection.#response = await connection.#watch(transport.fetch(url, { ...init, signal }));
    return connection;
  }

  get response(): Response {
    return this.#response as Response;
  }

  /** The body, piece by piece. Time between pieces is the caller's and is not watched. */
  async *body(): AsyncGenerator<Uint8Array<ArrayBuffer>> {
    const reader = this.response.body?.getReader();
    while (reader) {
      const { done, value } = await this.#watch(reader.read());
      if (done) return;
      yield value;
    }
  }

  /** Ends the request, whether or not its body was read. */
  close(): void {
    clearTimeout(this.#timer);
    this.#watchdog.abort();
  }

  async #watch<T>(work: Promise<T>): Promise<T> {
    let stalled = false;
    this.#timer = setTimeout(() => {
      stalled = true;
      this.#watchdog.abort();
    }, this.#transport.stallMs);
    try {
      return await work;
    } catch (error) {
      if (this.#transport.signal?.aborted) {
        throw new TabwrightError("aborted", "stopped on request", error);
      }
      if (stalled) {
        const seconds = this.#transport.stallMs / 1000;
        throw new TabwrightError("stalled", `${this.#url}: no byte came for ${seconds} s`, error);
      }
      throw new TabwrightError("network", `${this.#url}: ${reason(error)}`, error);
    } finally {
      clearTimeout(this.#timer);
    }
  }
}
