import { sha256 } from "./digest.ts";
import { reason, TabwrightError } from "./errors.ts";
import pageFiles from "./page_files.json" with { type: "json" };
import type { File as BundleFile, Manifest, State, TargetEntry } from "./schema.ts";

export type { BundleFile, Manifest, TargetEntry };

const SEAL = /"seal": "([0-9a-f]{64})"/g;
const DIGEST = /^[0-9a-f]{64}$/;
/** As in manifests/bundle.py. */
const MAX_AXIS = 1 << 20;
const PATH = /^[A-Za-z0-9][A-Za-z0-9_.-]*(?:\/[A-Za-z0-9][A-Za-z0-9_.-]*)*$/;

/** The ORT files, which the runtime hands to the browser as verified blobs. */
export const ORT_MODULE = "runtime/ort-wasm-simd-threaded.jspi.mjs";
export const ORT_WASM = "runtime/ort-wasm-simd-threaded.jspi.wasm";

/** The engine that holds answers to a schema: read when the first is asked for. */
export const GRAMMAR_ENGINE = "runtime/xgrammar.js";

/**
 * The files that the browser fetches and runs by itself. They are verified at
 * every load and never stored: a stored copy would hide that the served one changed.
 */
export const PAGE_FILES: ReadonlySet<string> = new Set(pageFiles);

/** `length` bytes at `offset` of a file, with their digest. */
export interface Chunk {
  readonly index: number;
  readonly offset: number;
  readonly length: number;
  readonly digest: string;
}

/**
 * Reads a manifest whose seal holds.
 *
 * @throws TabwrightError `seal-broken` when the bytes were changed after sealing,
 *   `manifest-invalid` when it is not a manifest that this runtime understands.
 */
export async function parseManifest(bytes: Uint8Array<ArrayBuffer>, url: string): Promise<Manifest> {
  const text = decodeUtf8(bytes, url);
  const seals = [...text.matchAll(SEAL)];
  const blank = text.replace(SEAL, `"seal": "${"0".repeat(64)}"`);
  const found = seals[0]?.[1];
  if (found === undefined || (await sha256(new TextEncoder().encode(blank))) !== found) {
    throw new TabwrightError("seal-broken", `${url}: the seal does not match: the manifest was changed`);
  }
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (error) {
    throw invalid(url, reason(error));
  }
  const manifest = document as Manifest;
  const fault = findFault(manifest);
  if (fault !== undefined) throw invalid(url, fault);
  return manifest;
}

function decodeUtf8(bytes: Uint8Array<ArrayBuffer>, url: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (error) {
    throw new TabwrightError("seal-broken", `${url}: not UTF-8: the manifest was changed`, error);
  }
}

function invalid(url: string, fault: string): TabwrightError {
  return new TabwrightError("manifest-invalid", `${url}: ${fault}`);
}

/** What must hold before any size or path in the manifest is acted on. */
function findFault(manifest: Manifest): string | undefined {
  if (manifest.format !== "tabwright-bundle" || manifest.version !== 1) {
    return "not a tabwright bundle of version 1";
  }
  if (!Number.isSafeInteger(manifest.chunk_size) || manifest.chunk_size <= 0) {
    return "chunk_size is not a positive integer";
  }
  const paths = new Set<string>();
  for (const file of manifest.files) {
    if (!PATH.test(file.path)) return `'${file.path}' is not a path inside the bundle`;
    if (paths.has(file.path)) return `${file.path} is listed twice`;
    if (!Number.isSafeInteger(file.size) || file.size < 0) return `${file.path} has no valid size`;
    if (file.chunks.length !== Math.ceil(file.size / manifest.chunk_size)) {
      return `${file.path} has ${file.chunks.length} chunk digests for ${file.size} bytes`;
    }
    if (!file.chunks.every((digest) => DIGEST.test(digest))) return `${file.path} has a malformed digest`;
    paths.add(file.path);
  }
  const named = [manifest.tokenizer, manifest.tokenizer_config, ORT_MODULE, ORT_WASM];
  for (const optional of [manifest.chat_template, manifest.self_check]) {
    if (optional !== undefined) named.push(optional);
  }
  for (const [name, target] of Object.entries(manifest.targets)) {
    const weights = manifest.weights[target.weights];
    if (weights === undefined) return `target ${name} names weights '${target.weights}', which are not there`;
    named.push(target.graph, ...weights.shards);
    if (target.resident_graph !== undefined) named.push(target.resident_graph);
    const strange = target.states.find(({ shape }) => !shape.every(isAxis));
    if (strange) return `target ${name} has a state '${strange.input}' of no valid shape`;
  }
  const absent = named.find((path) => !paths.has(path));
  return absent === undefined ? undefined : `${absent} is used but not listed`;
}

function isAxis(axis: State["shape"][number]): boolean {
  if (typeof axis !== "number") return axis === "batch_size" || axis === "past_sequence_length";
  return Number.isSafeInteger(axis) && axis > 0 && axis <= MAX_AXIS;
}

/**
 * The target called `name`.
 *
 * @throws TabwrightError `target-unknown`, listing those that the bundle has.
 */
export function findTarget(manifest: Manifest, name: string): TargetEntry {
  const target = manifest.targets[name];
  if (target === undefined) {
    const known = Object.keys(manifest.targets).sort().join(", ");
    throw new TabwrightError("target-unknown", `the bundle has no target '${name}'; it has ${known}`);
  }
  return target;
}

/** The shards of a target's weights, in order. */
export function shardsOf(manifest: Manifest, target: TargetEntry): readonly string[] {
  return manifest.weights[target.weights]?.shards ?? [];
}

/** Types, for whoever compiles a page against the runtime; no browser wants them. */
const TYPES = ".d.ts";

/**
 * Every file that a load of `target` verifies: all but types and the shards of other weights.
 * The graphs of other targets are small, and a changed bundle is refused as a whole.
 */
export function neededFiles(manifest: Manifest, target: TargetEntry): BundleFile[] {
  const own = new Set(shardsOf(manifest, target));
  const others = new Set(Object.values(manifest.weights).flatMap((weights) => weights.shards));
  return manifest.files.filter(({ path }) => own.has(path) || !(others.has(path) || path.endsWith(TYPES)));
}

/** The chunks of `file`, in order; the last may be shorter. */
export function chunksOf(file: BundleFile, chunkSize: number): Chunk[] {
  return file.chunks.map((digest, index) => {
    const offset = index * chunkSize;
    return { index, offset, length: Math.min(chunkSize, file.size - offset), digest };
  });
}
