"""The tokenizer that a GGUF file describes, rebuilt for the tokenizers library.

What llama.cpp does with ``tokenizer.ggml.*`` is the specification: its ids are what the
model was made for.  Two kinds are known: byte-level BPE (``gpt2``), whose merges are in
the file, and SentencePiece (``llama``), where of two neighbouring pieces those are merged
first that make the piece with the highest score.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as cut
from tokenizers.processors import TemplateProcessing

from exporter.checkpoint.gguf.errors import UnknownGgufTokenizer, UnreadableGguf
from exporter.checkpoint.gguf.metadata import Metadata

#: ``tokenizer.ggml.token_type``: unknown and control tokens are special, those that a
#: user defined are found in a text before anything else, but are text themselves.
_SPECIAL = frozenset({2, 3})
_USER_DEFINED = 4
_NORMAL = 1
_SPACE = "\u2581"
#: Of SentencePiece's pieces in one vocabulary: Gemma's 262,144 have 2 million.
_MOST_CHARACTERS = 8 << 20
_LONGEST_PIECE = 512

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LLAMA3 = (
    _CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
_QWEN2 = _LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True)
class _Cut:
    """How byte-level BPE cuts a text before it merges.

    Attributes:
        words: makes the pre-tokenizer.
        whole_words: a word that is a token is not cut at all, whatever the merges say.
        begins: a text begins with BOS unless the file says otherwise.
    """

    words: Callable[[], cut.PreTokenizer]
    whole_words: bool = False
    begins: bool = False


def _by(*patterns: str) -> Callable[[], cut.PreTokenizer]:
    return lambda: cut.Sequence(
        [
            *(cut.Split(Regex(pattern), "isolated") for pattern in patterns),
            cut.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _gpt2() -> cut.PreTokenizer:
    return cut.ByteLevel(add_prefix_space=False, use_regex=True)


def _digits_apart() -> cut.PreTokenizer:
    return cut.Sequence([cut.Digits(individual_digits=True), _gpt2()])


_LLAMA3_CUT = _Cut(_by(_LLAMA3), whole_words=True, begins=True)
#: By ``tokenizer.ggml.pre``, as llama.cpp's llama-vocab.cpp has them.
_CUTS: MappingProxyType[str, _Cut] = MappingProxyType(
    {
        "dbrx": _Cut(_by(_LLAMA3)),
        "deepseek-r1-qwen": _Cut(_by(_QWEN2)),
        "default": _Cut(_by(r"[\p{P}$+<=>^~|]+", _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
        "gpt-2": _Cut(_gpt2),
        "lfm2": _LLAMA3_CUT,
        "llama-bpe": _LLAMA3_CUT,
        "llama-v3": _LLAMA3_CUT,
        "llama3": _LLAMA3_CUT,
        "qwen2": _Cut(_by(_QWEN2)),
        "smaug-bpe": _Cut(_by(_LLAMA3)),
        "smollm": _Cut(_digits_apart),
    }
)


def build_tokenizer(metadata: Metadata) -> Tokenizer:
    """The tokenizer in ``metadata``.

    Raises:
        UnknownGgufTokenizer: one of another kind, or with another way of cutting words.
        UnreadableGguf: its parts contradict each other.
    """
    kind = metadata.text("tokenizer.ggml.model")
    if kind not in _KINDS:
        raise UnknownGgufTokenizer(metadata.path, f"tokenizer.ggml.model {kind}", _KINDS)
    tokens = metadata.texts("tokenizer.ggml.tokens")
    types = metadata.integers("tokenizer.ggml.token_type", [_NORMAL] * len(tokens))
    if not tokens or len(set(tokens)) != len(tokens) or len(types) != len(tokens):
        raise UnreadableGguf(metadata.path, "a token stands twice or has no type, or none is there")
    tokenizer, begins = _KINDS[kind](metadata, tokens, types)
    tokenizer.add_special_tokens(_added(tokens, types, special=True))
    tokenizer.add_tokens(_added(tokens, types, special=False))
    if metadata.flag("tokenizer.ggml.add_bos_token", default=begins):
        _begin_texts(tokenizer, metadata, tokens)
    if metadata.flag("tokenizer.ggml.add_eos_token", default=False):
        raise UnknownGgufTokenizer(metadata.path, "one that ends every text with EOS", ())
    return tokenizer


def _added(tokens: list[str], types: list[int], *, special: bool) -> list[AddedToken]:
    wanted = _SPECIAL if special else {_USER_DEFINED}
    return [
        AddedToken(token, special=special, normalized=False)
        for token, kind in zip(tokens, types, strict=True)
        if kind in wanted
    ]


def _begin_texts(tokenizer: Tokenizer, metadata: Metadata, tokens: list[str]) -> None:
    bos = metadata.token("tokenizer.ggml.bos_token_id")
    token = tokens[bos]
    try:
        tokenizer.post_processor = TemplateProcessing(
            single=[token, "$A"],
            pair=[token, "$A", f"{token}:1", "$B:1"],
            special_tokens=[(token, bos)],
        )
    except ValueError as error:
        raise UnreadableGguf(metadata.path, f"BOS is {token!r:.40}: {error}") from None


def _byte_level(metadata: Metadata, tokens: list[str], _: list[int]) -> tuple[Tokenizer, bool]:
    name = metadata.text("tokenizer.ggml.pre", "default")
    if name not in _CUTS:
        raise UnknownGgufTokenizer(metadata.path, f"tokenizer.ggml.pre {name}", _CUTS)
    how = _CUTS[name]
    merges = [merge.partition(" ")[::2] for merge in metadata.texts("tokenizer.ggml.merges")]
    tokenizer = _bpe(metadata, tokens, merges, ignore_merges=how.whole_words)
    tokenizer.pre_tokenizer = how.words()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer, how.begins


def _sentence_piece(
    metadata: Metadata, tokens: list[str], types: list[int]
) -> tuple[Tokenizer, bool]:
    scores = metadata.floats("tokenizer.ggml.scores")
    if len(scores) != len(tokens):
        raise UnreadableGguf(metadata.path, f"{len(scores)} scores of {len(tokens)} tokens")
    if sum(map(len, tokens)) > _MOST_CHARACTERS or max(map(len, tokens)) > _LONGEST_PIECE:
        raise UnreadableGguf(metadata.path, "its pieces are longer than any vocabulary's")
    pieces = {
        token: score
        for token, score, kind in zip(tokens, scores, types, strict=True)
        if kind == _NORMAL
    }
    unknown = metadata.token("tokenizer.ggml.unknown_token_id", 0)
    tokenizer = _bpe(
        metadata,
        tokens,
        _merges(pieces),
        unk_token=tokens[unknown],
        fuse_unk=True,
        byte_fallback=True,
    )
    prefixed = metadata.flag("tokenizer.ggml.add_space_prefix", default=True)
    spaces = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefixed else spaces
    )
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if prefixed:
        steps.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(steps)
    return tokenizer, True


def _merges(pieces: dict[str, float]) -> list[tuple[str, str]]:
    """Every way to make a piece of two, the piece with the highest score first.

    Of the ways to make one piece the longest beginning comes first, so that in a run of
    the same characters the leftmost are merged first, as llama.cpp does.
    """
    ways = [
        (-score, -at, piece)
        for piece, score in pieces.items()
        for at in range(1, len(piece))
        if piece[:at] in pieces and piece[at:] in pieces
    ]
    ways.sort()
    return [(piece[:-at], piece[-at:]) for _, at, piece in ways]


def _bpe(
    metadata: Metadata, tokens: list[str], merges: list[tuple[str, str]], **settings: object
) -> Tokenizer:
    vocabulary = {token: index for index, token in enumerate(tokens)}
    try:
        return Tokenizer(models.BPE(vocab=vocabulary, merges=merges, **settings))
    except Exception as error:  # noqa: BLE001 - the library raises nothing more exact
        raise UnreadableGguf(metadata.path, f"no BPE can be made of its merges: {error}") from None


_KINDS: MappingProxyType[
    str, Callable[[Metadata, list[str], list[int]], tuple[Tokenizer, bool]]
] = MappingProxyType({"gpt2": _byte_level, "llama": _sentence_piece})
