// Written by `python -m manifests.generate` from manifests/*.py. Do not edit.

/** The GPU adapter as WebGPU describes it. */
export interface Adapter {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly is_fallback: boolean;
  readonly features: readonly string[];
  readonly device_features: readonly string[];
  readonly limits: Readonly<Record<string, number>>;
}

/**
 * What one target must give.
 *
 * ``tolerance``: how far a logit may be off, in spreads.
 */
export interface ExpectedLogits {
  readonly tolerance: number;
  readonly positions: readonly TopLogits[];
}

/**
 * A way that failed, the one that took its place, and why.
 *
 * ``code`` is the error's code: ``self-check-failed`` where the logits were wrong.
 */
export interface Fallback {
  readonly step: "needed-features" | "short-prefill" | "plain-loop" | "other-target" | "cpu";
  readonly failed: Way;
  readonly taken: Way;
  readonly code: string;
  readonly reason: string;
}

/**
 * One file of the bundle.
 *
 * ``chunks`` holds the SHA-256 of each ``chunk_size`` bytes (the last may be
 * shorter), so that a download is verified and resumed chunk by chunk.
 */
export interface File {
  readonly path: string;
  readonly media_type: string;
  readonly size: number;
  readonly sha256: string;
  readonly chunks: readonly string[];
}

/**
 * Where the load went, in milliseconds of wall time.
 *
 * Phases overlap (chunks are verified and stored while others download), so
 * ``fetch``, ``verify`` and ``store`` are each the time in which at least one
 * chunk was in that phase, and may sum to more than ``total``.
 */
export interface LoadTimings {
  readonly fetch_ms: number;
  readonly verify_ms: number;
  readonly store_ms: number;
  readonly session_ms: number;
  readonly total_ms: number;
  readonly bytes_fetched: number;
  readonly bytes_from_store: number;
  readonly self_check_ms: number;
}

/** The whole bundle. */
export interface Manifest {
  readonly format: "tabwright-bundle";
  readonly version: 1;
  readonly model: Model;
  readonly source: Source;
  readonly chunk_size: number;
  readonly files: readonly File[];
  readonly targets: Readonly<Record<string, TargetEntry>>;
  readonly weights: Readonly<Record<string, WeightSet>>;
  readonly tokenizer: string;
  readonly tokenizer_config: string;
  readonly chat_template?: string;
  readonly generation_config?: string;
  readonly tools: Readonly<Record<string, string>>;
  readonly seal: string;
  /** logits that every device must come to, see manifests/self_check.py */
  readonly self_check?: string;
}

/** What the runtime must know to feed the graph. */
export interface Model {
  readonly name: string;
  readonly architecture: string;
  readonly model_type: string;
  readonly parameters: number;
  readonly vocab_size: number;
  readonly layers: number;
  readonly context_length: number;
  readonly bos_token_id?: number;
  readonly eos_token_ids: readonly number[];
}

/** Where a tensor's bytes lie: ``length`` bytes at ``offset`` of ``file``. */
export interface Range {
  readonly file: string;
  readonly offset: number;
  readonly length: number;
}

/**
 * The error that a second rounding made.
 *
 * ``rms`` is ||stored - source|| / ||source|| (Frobenius); ``max`` is the
 * largest |stored - source| divided by the largest |source|.
 */
export interface Rounding {
  readonly rms: number;
  readonly max: number;
}

/** A text, fed as a prompt of its first ``prompt_tokens`` tokens and then one by one. */
export interface SelfCheck {
  readonly format: "tabwright-self-check";
  readonly version: 1;
  readonly tokens: readonly number[];
  readonly prompt_tokens: number;
  readonly targets: Readonly<Record<string, ExpectedLogits>>;
}

/**
 * Whether the device came to the logits that the bundle stores.
 *
 * ``passed-before``: an earlier load's pass, of the same bundle on the same adapter and
 * browser, is trusted.  ``error``: the largest distance of a logit, in spreads.
 */
export interface SelfCheckResult {
  readonly outcome: "passed" | "passed-before" | "skipped" | "absent";
  readonly error?: number;
  readonly tolerance?: number;
  readonly positions: number;
}

/** The checkpoint, so that a reference made from another one is refused. */
export interface Source {
  readonly format: string;
  readonly files: readonly SourceFile[];
  /** SHA-256 over the files' names and digests, in order */
  readonly digest: string;
  /** what the checkpoint's scheme asks for that the bundle does not do */
  readonly remarks: readonly string[];
}

/** A file of the checkpoint that the bundle was made from. */
export interface SourceFile {
  readonly path: string;
  readonly size: number;
  readonly sha256: string;
}

/**
 * A tensor that a graph hands from one call to the next.
 *
 * What ``output`` gives is fed to ``input`` of the next call.  The first call gets zeros
 * of ``shape``, where ``batch_size`` is 1 and ``past_sequence_length`` the number of
 * positions fed so far, which is 0: a KV cache starts empty and grows, a state of plain
 * numbers keeps its size.
 */
export interface State {
  readonly input: string;
  readonly output: string;
  readonly dtype: "float16" | "float32";
  readonly shape: readonly (number | "batch_size" | "past_sequence_length")[];
}

/** What one target loads, and what the device must offer for it. */
export interface TargetEntry {
  readonly graph: string;
  /** over the same weights, for a decode loop that stays on the GPU */
  readonly resident_graph?: string;
  /** key in the manifest's `weights` */
  readonly weights: string;
  readonly execution_provider: "webgpu" | "wasm";
  readonly activation_dtype: "float16" | "float32";
  readonly states: readonly State[];
  /** GPU features without which it cannot run */
  readonly features: readonly string[];
  /** least GPU limits, by WebGPU's names */
  readonly limits: Readonly<Record<string, number>>;
  /** onnxruntime session configuration entries, e.g. session.disable_quant_qdq */
  readonly session_config: Readonly<Record<string, string>>;
  /** the weights in memory, once loaded */
  readonly weight_bytes?: number;
}

/**
 * A row of the ledger: one source tensor and how it lies in the bundle.
 *
 * A quantised tensor of ``shape`` [N, K] is stored as unsigned codes, row by
 * row, low bits first, so that ``value = (code - zero_point) * scale`` with one
 * scale per ``block_size`` codes along K: the layout that com.microsoft's
 * MatMulNBits and ONNX's blocked DequantizeLinear share.  ``zero_points`` is
 * absent when every one of them is ``2**(bits-1)``.  Where ``permutation`` is
 * there, int32 [K], column ``j`` of the codes is column ``permutation[j]`` of the
 * tensor: the graph permutes the activations instead.  A float tensor has
 * ``values`` only.
 */
export interface Tensor {
  readonly name: string;
  readonly role: "linear" | "embedding" | "head" | "tied" | "float";
  readonly shape: readonly number[];
  /** the scheme it had, e.g. 'int4 g32 symmetric' or 'bfloat16' */
  readonly source: string;
  /** the source holds the transpose of ``shape`` */
  readonly transposed?: true;
  /** exact: every stored value equals the source's value bit for bit */
  readonly outcome: "exact" | "requantised";
  readonly rounding?: Rounding;
  readonly zeros?: Zeros;
  readonly bits?: number;
  readonly block_size?: number;
  readonly codes?: Range;
  readonly scales?: Range;
  readonly scale_dtype?: "float16" | "float32";
  readonly zero_points?: Range;
  readonly permutation?: Range;
  readonly values?: Range;
  readonly value_dtype?: "float16" | "float32";
}

/**
 * The highest logits after the token at ``position``, as float32 holds them.
 *
 * ``spread`` is the standard deviation of all the logits there: the unit of tolerances.  It is
 * 0 where all are equal, as those of weights of zeros are.
 */
export interface TopLogits {
  readonly position: number;
  readonly ids: readonly number[];
  readonly values: readonly number[];
  readonly spread: number;
}

/**
 * How a load goes about it: what a fallback changes.
 *
 * ``prefill_chunk``: most tokens of a prompt's step; ``None`` for what suits the adapter.
 */
export interface Way {
  readonly target: string;
  readonly device_features: "needed" | "all";
  readonly loop: "resident" | "plain";
  readonly prefill_chunk?: number;
}

/** Shards that several targets share, and the ledger of what is in them. */
export interface WeightSet {
  readonly shards: readonly string[];
  /** SHA-256 over the shards' digests, in order */
  readonly digest: string;
  readonly tensors: readonly Tensor[];
}

/**
 * The share of a matrix's values that are exactly zero, before and after.
 *
 * ``pattern`` is ``2:4`` when, as stored, every four neighbours along K (the first
 * starts each row) hold at least two zeros.
 */
export interface Zeros {
  readonly source: number;
  readonly stored: number;
  readonly pattern?: "2:4";
}
