"""Pickles under any name, and JSON that is none."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from exporter.checkpoint import open_checkpoint
from exporter.checkpoint.tokenizer import TokenizerUnreadable, open_tokenizer
from tests.attacks import tiny, tiny_binary
from tests.attacks.documents import HEADER, SCHEME, STATE, WHOLE
from tests.attacks.files import (
    Case,
    config,
    doubled,
    gguf,
    index,
    only,
    place,
    raw_header,
    refused,
    text_of,
    write_file,
    zip_bomb,
)
from tests.attacks.mutate import Raw
from tests.attacks.tiny_tokenizers import CHARSMAP

_DEEP = "[" * 200_000
_STEERING = """{"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {
    "g": {"weights": {"num_bits": 8, "type": "int"},
          "input_activations": {"num_bits": 8, "type": "\\u001b[2J"}}}}"""
PICKLES: dict[str, Case] = {
    **{
        f"protocol {protocol} under another name": (
            tiny.plain,
            write_file("model.safetensors", pickle.dumps({"weight": b"x" * 64}, protocol)),
            "pickle-refused" if protocol >= 2 else "shard-corrupt",
        )
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1)
    },
    "a zip under another name": (
        tiny.plain,
        lambda p: (p / "model.safetensors").write_bytes(zip_bomb()),
        "pickle-refused",
    ),
    "a zip bomb": (tiny.plain, only("pytorch_model.bin", zip_bomb), "pickle-refused"),
    "a zip bomb of torch": (tiny.plain, only("consolidated.pth", zip_bomb), "pickle-refused"),
    "a zip bomb in the index": (
        tiny.plain,
        lambda p: (
            only("pytorch_model.bin", zip_bomb)(p),
            index(a="pytorch_model.bin")(p),
        ),
        "pickle-refused",
    ),
    "a zip bomb for an adapter": (
        tiny.lora,
        only("adapter/adapter_model.bin", zip_bomb),
        "pickle-refused",
    ),
}
TEXTS: dict[str, Case] = {
    "a key twice in a header": (
        tiny.plain,
        doubled("model.safetensors", HEADER),
        "shard-corrupt",
    ),
    "a key twice in a config": (
        tiny.plain,
        doubled("config.json", WHOLE),
        "not-a-checkpoint",
    ),
    "a key twice in a scheme": (
        tiny.gptq,
        doubled("config.json", SCHEME),
        "not-a-checkpoint",
    ),
    "a key twice in an index": (
        tiny.sharded,
        doubled("model.safetensors.index.json", WHOLE),
        "not-a-checkpoint",
    ),
    "a key twice in an adapter's config": (
        tiny.lora,
        doubled("adapter/adapter_config.json", WHOLE),
        "not-an-adapter",
    ),
    "a key twice in quant_state": (
        tiny.nf4,
        doubled("model.safetensors", STATE),
        "wrong-shape",
    ),
    "GGUF: a key twice": (
        tiny_binary.gguf,
        gguf(lambda d: d[3].append(d[3][0])),
        "gguf-unreadable",
    ),
    "a deep header": (tiny.plain, raw_header(_DEEP), "shard-corrupt"),
    "a deep config": (tiny.plain, write_file("config.json", _DEEP.encode()), "not-a-checkpoint"),
    "a deep value in a config": (tiny.plain, config(x=Raw(_DEEP)), "not-a-checkpoint"),
    "a deep scheme": (
        tiny.gptq,
        text_of("config.json", SCHEME, _DEEP),
        "not-a-checkpoint",
    ),
    "a deep index": (
        tiny.sharded,
        write_file("model.safetensors.index.json", _DEEP.encode()),
        "not-a-checkpoint",
    ),
    "a deep tokenizer": (
        tiny.plain,
        write_file("tokenizer.json", _DEEP.encode()),
        "tokenizer-unreadable",
    ),
    "a deep tokenizer config": (
        tiny.plain,
        write_file("tokenizer_config.json", _DEEP.encode()),
        "not-a-checkpoint",
    ),
    "a deep adapter's config": (
        tiny.lora,
        write_file("adapter/adapter_config.json", _DEEP.encode()),
        "not-an-adapter",
    ),
    "a deep quant_state": (
        tiny.nf4,
        text_of("model.safetensors", STATE, "[" * 60_000),
        "wrong-shape",
    ),
    "a config in UTF-16": (
        tiny.plain,
        lambda p: (p / "config.json").write_text((p / "config.json").read_text(), "utf-16"),
        "not-a-checkpoint",
    ),
    "an architecture that steers a terminal": (
        tiny.plain,
        config(architectures=["\x1b[2J"]),
        "not-a-checkpoint",
    ),
    "a type that steers a terminal": (
        tiny.int8,
        text_of("config.json", SCHEME, _STEERING),
        "not-a-checkpoint",
    ),
    "half of a surrogate pair": (tiny.plain, config(x=Raw('"\\ud800"')), "not-a-checkpoint"),
}


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_are_refused(case: str, tmp_path: Path) -> None:
    refused(PICKLES[case], tmp_path / "checkpoint")


@pytest.mark.parametrize("case", TEXTS)
def test_texts_are_refused(case: str, tmp_path: Path) -> None:
    refused(TEXTS[case], tmp_path / "checkpoint")


def test_a_library_s_panic_is_an_error_and_not_a_word_on_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = place(tiny.tokenized, tmp_path / "checkpoint")
    tokenizer = (folder / "tokenizer.json").read_text()
    (folder / "tokenizer.json").write_text(tokenizer.replace(CHARSMAP, ""))
    with pytest.raises(TokenizerUnreadable, match="Cannot parse precompiled_charsmap"):
        open_tokenizer(open_checkpoint(folder))
    assert capfd.readouterr().err == ""
