"""The smallest tokenizer, and one with a part of every kind."""

from __future__ import annotations

import json
from base64 import b64encode
from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as cut
from tokenizers.processors import TemplateProcessing

#: A sentencepiece normalizer of nothing: the length of a trie, and a trie of one unit.
CHARSMAP = b64encode(b"\4\0\0\0\0\0\0\0").decode()


@cache
def small() -> bytes:
    """Words of one letter."""
    words = {word: index for index, word in enumerate("abcdefg")}
    tokenizer = Tokenizer(models.WordLevel({**words, "[UNK]": 7}, unk_token="[UNK]"))  # noqa: S106
    tokenizer.pre_tokenizer = cut.Whitespace()
    text: str = tokenizer.to_str()
    return text.encode()


@cache
def large() -> bytes:
    """BPE, normalised, cut and decoded in every way that takes a setting."""
    words = {letter: index for index, letter in enumerate("abcdef")}
    tokenizer = Tokenizer(
        models.BPE(
            vocab={**words, "ab": 6, "[UNK]": 7},
            merges=[("a", "b")],
            unk_token="[UNK]",  # noqa: S106
            byte_fallback=True,
            ignore_merges=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFC(),
            normalizers.Replace(Regex("a+"), "a"),
            normalizers.Prepend("_"),
            normalizers.Strip(),
            normalizers.BertNormalizer(),
        ]
    )
    tokenizer.pre_tokenizer = cut.Sequence(
        [
            cut.Split(Regex(r"\p{L}+|\s+"), "isolated"),
            cut.ByteLevel(),
            cut.Metaspace(),
            cut.Digits(),
            cut.Punctuation(),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("_", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip()]
    )
    tokenizer.post_processor = TemplateProcessing(
        single="[UNK] $A", pair="[UNK] $A $B:1", special_tokens=[("[UNK]", 7)]
    )
    tokenizer.add_special_tokens([AddedToken("[UNK]", special=True), AddedToken("<x>")])
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(pad_id=7, pad_token="[UNK]", length=4)  # noqa: S106
    document = json.loads(tokenizer.to_str())
    document["normalizer"]["normalizers"].append(
        {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}
    )
    return json.dumps(document).encode()
