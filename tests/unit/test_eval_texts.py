"""Special tokens around a text, for tokenizers that add them and tokenizers that do not."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from browser_harness.evaluation.texts import NoPrefixToken, Texts
from manifests.errors import BadDocument

BOS, EOS = "<s>", "</s>"
SPECIAL = {BOS: 1, EOS: 2}


def _ids(text: str) -> list[int]:
    """A token per letter, and one per special token."""
    ids = []
    while text:
        token = next((each for each in SPECIAL if text.startswith(each)), text[0])
        ids.append(SPECIAL.get(token, ord(token[0])))
        text = text[len(token) :]
    return ids


def _texts(folder: Path, around: tuple[Sequence[int], Sequence[int]], **config: object) -> Texts:
    before, after = around
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    page = SimpleNamespace(tokenize=lambda texts: [(*before, *_ids(t), *after) for t in texts])
    wait: Callable[[Any], Any] = lambda answer: answer  # noqa: E731
    manifest = SimpleNamespace(tokenizer_config="tokenizer_config.json")
    opened: Any = SimpleNamespace(page=page, wait=wait, manifest=manifest)
    return Texts(folder, opened)


@pytest.mark.parametrize("around", [((), ()), ((1,), ()), ((1,), (2,)), ((), (2,))])
def test_a_text_without_what_is_added(
    around: tuple[Sequence[int], Sequence[int]], tmp_path: Path
) -> None:
    texts = _texts(tmp_path, around, bos_token=BOS, eos_token={"content": EOS})
    assert texts.encode_bare("hi") == [104, 105]
    assert texts.encode_bare("") == []
    assert texts.encode_once("hi") == [*around[0], 104, 105, *around[1]]
    assert texts.encode_once("<s>hi") == [1, 104, 105]
    assert texts.eos == EOS
    assert texts.single(["a", "ab", EOS]) == [97, 2]


def test_the_prefix_is_the_beginning_or_else_the_end(tmp_path: Path) -> None:
    assert _texts(tmp_path, ((), ()), bos_token=BOS, eos_token=EOS).prefix() == 1
    assert _texts(tmp_path, ((), ()), bos_token=None, eos_token=EOS).prefix() == 2
    with pytest.raises(NoPrefixToken):
        _texts(tmp_path, ((), ())).prefix()


def test_a_config_that_is_no_object_is_refused(tmp_path: Path) -> None:
    opened: Any = SimpleNamespace(
        manifest=SimpleNamespace(tokenizer_config="tokenizer_config.json")
    )
    for text in ("[]", "{"):
        (tmp_path / "tokenizer_config.json").write_text(text)
        with pytest.raises(BadDocument, match=r"tokenizer_config\.json"):
            Texts(tmp_path, opened)
