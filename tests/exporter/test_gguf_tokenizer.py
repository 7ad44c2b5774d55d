"""Tokenizers rebuilt from GGUF against llama.cpp.

``gguf_tokens.json`` holds two vocabularies, some texts, and the ids that llama.cpp's own
server gave for them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders

from exporter.checkpoint.gguf.errors import (
    TokenizerNotLossless,
    UnknownGgufTokenizer,
    UnreadableGguf,
)
from exporter.checkpoint.gguf.metadata import Metadata
from exporter.checkpoint.gguf.roundtrip import check_lossless
from exporter.checkpoint.gguf.tokenizer import build_tokenizer

MADE: Mapping[str, Any] = json.loads((Path(__file__).parent / "gguf_tokens.json").read_bytes())
PATH = Path("model.gguf")


def _keys(case: str) -> dict[str, Any]:
    if not case.startswith("spm"):
        kind = {"model": "gpt2", "pre": case, "merges": MADE["byte_level"]["merges"]}
        vocabulary = MADE["byte_level"]
    else:
        vocabulary = MADE["sentence_piece"]
        kind = {
            "model": "llama",
            "scores": vocabulary["scores"],
            "add_space_prefix": case.endswith("prefix"),
            "unknown_token_id": 0,
        }
    return {
        "tokens": vocabulary["tokens"],
        "token_type": vocabulary["types"],
        "bos_token_id": vocabulary["bos"],
        **kind,
    }


def _build(case: str, **changes: Any) -> Tokenizer:
    keys = {f"tokenizer.ggml.{key}": value for key, value in (_keys(case) | changes).items()}
    return build_tokenizer(Metadata(PATH, {k: v for k, v in keys.items() if v is not None}))


@pytest.mark.parametrize("case", MADE["ids"])
def test_ids_are_llama_cpp_s(case: str) -> None:
    tokenizer = _build(case)
    found = [tokenizer.encode(text).ids for text in MADE["texts"]]
    assert found == MADE["ids"][case]


# With a prefix llama.cpp itself puts a space behind each token that a user defined.
@pytest.mark.parametrize("case", sorted(MADE["ids"].keys() - {"spm-with-prefix"}))
def test_texts_come_back(case: str) -> None:
    check_lossless(PATH, _build(case))


def test_bos_is_given_where_the_file_says_so() -> None:
    begun, plain = (_build("qwen2", add_bos_token=flag).encode("ab").ids for flag in (True, False))
    assert begun == [MADE["byte_level"]["bos"], *plain]


def test_a_tokenizer_that_loses_spaces_is_refused() -> None:
    tokenizer = _build("smollm")
    tokenizer.decoder = decoders.Metaspace()
    with pytest.raises(TokenizerNotLossless, match=r"model\.gguf"):
        check_lossless(PATH, tokenizer)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"model": "bert"}, "tokenizer.ggml.model bert"),
        ({"pre": "tekken"}, "tokenizer.ggml.pre tekken"),
        ({"add_eos_token": True}, "EOS"),
    ],
)
def test_what_is_not_known_is_refused_by_name(changes: dict[str, Any], what: str) -> None:
    with pytest.raises(UnknownGgufTokenizer, match=what) as caught:
        _build("qwen2", **changes)
    assert caught.value.code == "gguf-tokenizer-unknown"


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("qwen2", {"tokens": None}),
        ("qwen2", {"tokens": [], "token_type": []}),
        ("qwen2", {"tokens": ["a", "a"]}),
        ("qwen2", {"token_type": [1]}),
        ("qwen2", {"merges": ["x"]}),
        ("qwen2", {"merges": ["no piece"]}),
        ("llama-bpe", {"bos_token_id": 512}),
        ("spm", {"scores": [0.0]}),
        ("spm", {"unknown_token_id": 512}),
        ("spm", {"tokens": ["a" * 600], "token_type": [1], "scores": [0.0]}),
    ],
)
def test_a_vocabulary_that_contradicts_itself_is_refused(
    case: str, changes: dict[str, Any]
) -> None:
    with pytest.raises(UnreadableGguf):
        _build(case, **changes)
