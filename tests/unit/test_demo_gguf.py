"""The demo's conversion: a GGUF file becomes the checkpoint that it was made of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints import CHAT_TEMPLATE, SPECIAL_TOKENS
from tests.gguf_files import write_gguf


@pytest.mark.parametrize("variant", ["bf16", "bf16-untied"])
def test_what_went_in_comes_out(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path, variant: str
) -> None:
    from safetensors.torch import load_file
    from transformers import AutoTokenizer

    from exporter.compress.convert import convert

    source, out = tiny_checkpoint(variant), tmp_path / "out"
    out.mkdir()
    convert(write_gguf(source, tmp_path / "model.gguf", "F32"), out)

    expected, found = (load_file(path / "model.safetensors") for path in (source, out))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert found[name].dtype == values.dtype
        assert bool((found[name] == values).all()), name
    configs = [json.loads((path / "config.json").read_text("utf-8")) for path in (source, out)]
    for config in configs:
        del config["initializer_range"]
    assert configs[1] == configs[0]

    tokenizer: Any = AutoTokenizer.from_pretrained(out)
    assert tokenizer.eos_token == SPECIAL_TOKENS[2]
    assert tokenizer.chat_template == CHAT_TEMPLATE
    text = "Numbers 1024 and ٣٤٥, <|im_end|> then  two spaces"
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert 2 in ids
    assert [tokenizer.decode(i) for i in tokenizer("1024")["input_ids"]] == ["1", "0", "2", "4"]
