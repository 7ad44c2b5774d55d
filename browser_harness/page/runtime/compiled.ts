import type { BundleFile } from "./manifest.ts";

/**
 * The browser's own copy of a WebAssembly file, beside which it keeps the machine code that it
 * made of it at an earlier visit; that starts faster than the same bytes from a blob. The browser
 * verifies it. The network is not asked.
 *
 * @returns undefined where there is no copy, or not one of these bytes.
 */
export async function compiledBefore(url: string, file: BundleFile): Promise<Response | undefined> {
  const integrity = `sha256-${base64(file.sha256)}`;
  try {
    const response = await fetch(url, { cache: "only-if-cached", mode: "same-origin", integrity });
    const usable = response.ok && response.headers.get("Content-Type") === "application/wasm";
    return usable ? response : undefined;
  } catch {
    return undefined;
  }
}

/** Runs `work`, in which WebAssembly is compiled from `response` whatever it asks for. */
export async function compilingFrom<T>(response: Response | undefined, work: () => Promise<T>): Promise<T> {
  if (!response) return await work();
  const { instantiateStreaming } = WebAssembly;
  WebAssembly.instantiateStreaming = (_source, imports) => instantiateStreaming(response, imports);
  try {
    return await work();
  } finally {
    WebAssembly.instantiateStreaming = instantiateStreaming;
  }
}

function base64(hex: string): string {
  return btoa((hex.match(/../g) ?? []).map((digits) => String.fromCharCode(Number.parseInt(digits, 16))).join(""));
}
