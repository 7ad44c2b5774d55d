/** A step of tokenizer.json's `pre_tokenizer`. */
interface Step {
  readonly type: string;
  readonly pretokenizers?: readonly Step[];
  readonly [option: string]: unknown;
}

/** The pattern by which ByteLevel cuts words, as the tokenizers library has it. */
const BYTE_LEVEL_WORDS =
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

function split(pattern: string): Step {
  return { type: "Split", pattern: { Regex: pattern }, behavior: "Isolated", invert: false };
}

/**
 * Says the same with Split, whose patterns @huggingface/tokenizers 0.2.0 reads as
 * Unicode does. Its own Digits knows ASCII's digits only, and its ByteLevel takes
 * U+FEFF for white space and U+0085 not: Arabic numbers, for one, got other ids.
 */
export function withUnicodeClasses(step: Step | null): Step | null {
  if (step?.pretokenizers) {
    return { ...step, pretokenizers: step.pretokenizers.map((inner) => withUnicodeClasses(inner) as Step) };
  }
  if (step?.type === "Digits") return split(step["individual_digits"] ? "\\p{N}" : "\\p{N}+");
  // A prefix space comes before the cut, so that with one the two cannot be parted.
  if (step?.type === "ByteLevel" && step["use_regex"] !== false && step["add_prefix_space"] === false) {
    return { type: "Sequence", pretokenizers: [split(BYTE_LEVEL_WORDS), { ...step, use_regex: false }] };
  }
  return step;
}
