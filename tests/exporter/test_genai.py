"""onnxruntime-genai opens a bundle as it is, and answers as transformers and onnxruntime do."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime_genai as genai
import pytest
import transformers

from exporter.pipeline import export
from targets import find_targets
from tests.decoder import Decoder
from tests.families import FAMILY_CASES, write_family

TOKENS = 10
PROMPT = [1, 17, 300, 42, 511, 7, 7, 99]
#: So that a text of random weights is not one token over and over.
LIVELY = {"tie_word_embeddings": False, "initializer_range": 0.2}
#: One of each family.
FAMILIES = {tiny.model_type: name for name, tiny in reversed(list(FAMILY_CASES.items()))}


def _expected(bundle: Path, target: str) -> list[int]:
    decoder, tokens, fed = Decoder(bundle, target), list[int](), PROMPT
    for _ in range(TOKENS):
        tokens.append(int(decoder.step(np.array(fed), 1)[-1].argmax()))
        fed = tokens[-1:]
    return tokens


def _generated(model: Any) -> list[int]:
    parameters = genai.GeneratorParams(model)
    parameters.set_search_options(max_length=len(PROMPT) + TOKENS)
    generator = genai.Generator(model, parameters)
    generator.append_tokens(PROMPT)
    tokens: list[int] = []
    while len(tokens) < TOKENS:
        generator.generate_next_token()
        tokens.append(int(generator.get_next_tokens()[0]))
    return tokens


def _write(family: str, folder: Path) -> Path:
    case = FAMILY_CASES[FAMILIES[family]]
    return write_family(replace(case, settings={**case.settings, **LIVELY}), folder)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write("llama", tmp_path_factory.mktemp("tiny") / "checkpoint")


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_familys_greedy_tokens_are_those_of_onnxruntime(
    family: str, page: Path, tmp_path: Path
) -> None:
    checkpoint = _write(family, tmp_path / "checkpoint")
    bundle = tmp_path / "bundle"
    export(checkpoint, find_targets(["webgpu-q4", "wasm-q4"]), bundle, runtime=page)
    expected = _expected(bundle, "wasm-q4")
    assert len(set(expected)) > 3
    assert _generated(genai.Model(str(bundle))) == expected


@pytest.mark.parametrize("target", ["webgpu-q4", "webgpu-q4f16", "wasm-q8"])
def test_any_one_target_is_enough(target: str, tiny: Path, page: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    export(tiny, find_targets([target]), bundle, runtime=page)
    assert _generated(genai.Model(str(bundle))) == _expected(bundle, target)


def test_its_tokens_and_chat_are_those_of_transformers(
    tiny: Path, page: Path, tmp_path: Path
) -> None:
    bundle = tmp_path / "bundle"
    export(tiny, find_targets(["wasm-q4"]), bundle, runtime=page)
    tokenizer = genai.Tokenizer(genai.Model(str(bundle)))
    untyped: Any = transformers
    expected = untyped.AutoTokenizer.from_pretrained(tiny)
    for text in ("The quick brown fox", "كتب المهندس رسالة قصيرة", "  two  spaces <|im_end|>"):
        assert list(tokenizer.encode(text)) == expected(text)["input_ids"]
    messages = [{"role": "user", "content": "hello"}]
    assert tokenizer.apply_chat_template(
        json.dumps(messages), add_generation_prompt=True
    ) == expected.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
