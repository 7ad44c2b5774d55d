"""Offsets, sizes and counts that lie."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.attacks import tiny, tiny_binary
from tests.attacks.documents import STATE
from tests.attacks.files import (
    Case,
    config,
    external,
    gguf,
    header,
    offsets,
    refused,
    sparse,
    text_of,
    write_file,
)
from tests.attacks.mutate import Raw

_SHAPE = 1 << 40
OFFSETS: dict[str, Case] = {
    "two tensors at one place": (
        tiny.plain,
        offsets("model.norm.weight", 0, 128),
        "shard-corrupt",
    ),
    "a tensor that begins in another": (
        tiny.plain,
        offsets("model.norm.weight", 256, 384),
        "shard-corrupt",
    ),
    "a tensor beyond the end": (
        tiny.plain,
        offsets("model.norm.weight", 1 << 40, (1 << 40) + 128),
        "shard-corrupt",
    ),
    "a tensor before the beginning": (
        tiny.plain,
        offsets("model.norm.weight", -128, 0),
        "shard-corrupt",
    ),
    "a tensor that ends before it begins": (
        tiny.plain,
        offsets("model.norm.weight", 640, 512),
        "shard-corrupt",
    ),
    "offsets that are truth values": (
        tiny.plain,
        header(lambda h: h.update(x={"dtype": "U8", "shape": [1], "data_offsets": [False, True]})),
        "shard-corrupt",
    ),
    "a type of another width": (
        tiny.plain,
        header(lambda h: h["model.norm.weight"].update(dtype="F16")),
        "shard-corrupt",
    ),
    "bytes after the last tensor": (
        tiny.plain,
        lambda p: sparse("model.safetensors", (p / "model.safetensors").stat().st_size + 1)(p),
        "shard-corrupt",
    ),
    "GGUF: two tensors at one place": (
        tiny_binary.gguf,
        gguf(lambda d: d[4][1].__setitem__(3, 0)),
        "gguf-unreadable",
    ),
    "GGUF: a tensor beyond the end": (
        tiny_binary.gguf,
        gguf(lambda d: d[4][3].__setitem__(3, 1 << 60)),
        "gguf-unreadable",
    ),
    "external data beyond the end": (tiny_binary.onnx, external(offset="128"), "onnx-corrupt"),
    "external data before the beginning": (
        tiny_binary.onnx,
        external(offset="-64"),
        "onnx-corrupt",
    ),
    "external data of no length": (tiny_binary.onnx, external(length="x"), "onnx-corrupt"),
    "external data too short": (tiny_binary.onnx, external(length="4092"), "onnx-corrupt"),
}
COUNTS: dict[str, Case] = {
    "a header of exabytes": (
        tiny.plain,
        write_file("model.safetensors", struct.pack("<Q", 1 << 63) + b"{}"),
        "shard-corrupt",
    ),
    "a tensor of yottabytes": (
        tiny.plain,
        header(lambda h: h["model.norm.weight"].update(shape=[_SHAPE, _SHAPE])),
        "shard-corrupt",
    ),
    "a tensor of no bytes and many rows": (
        tiny.plain,
        header(
            lambda h: h.update(x={"dtype": "F32", "shape": [_SHAPE, 0], "data_offsets": [0, 0]})
        ),
        "tensor-unknown",
    ),
    "a vocabulary beyond all": (tiny.plain, config(vocab_size=1 << 62), "not-a-checkpoint"),
    "more layers than tensors": (tiny.plain, config(num_hidden_layers=1024), "not-a-checkpoint"),
    "a number of five thousand digits": (
        tiny.plain,
        config(hidden_size=Raw("9" * 5000)),
        "not-a-checkpoint",
    ),
    "a number that is none": (tiny.plain, config(rope_theta=Raw("NaN")), "not-a-checkpoint"),
    "a number without end": (tiny.plain, config(rope_theta=Raw("1e999")), "not-a-checkpoint"),
    "quant_state of a huge matrix": (
        tiny.nf4,
        text_of(
            "model.safetensors",
            STATE,
            '{"blocksize": 64, "dtype": "float16", "shape": [16777216, 16777216]}',
        ),
        "wrong-shape",
    ),
    "GGUF: tensors": (
        tiny_binary.gguf,
        gguf(lambda d: d.__setitem__(1, 1 << 62)),
        "gguf-unreadable",
    ),
    "GGUF: pairs": (tiny_binary.gguf, gguf(lambda d: d.__setitem__(2, 1 << 62)), "gguf-unreadable"),
    "GGUF: values of an array": (
        tiny_binary.gguf,
        gguf(lambda d: d[3][12][2].__setitem__(1, 1 << 62)),
        "gguf-unreadable",
    ),
    "GGUF: axes": (
        tiny_binary.gguf,
        gguf(lambda d: d[4][0].__setitem__(1, [1 << 60, 1 << 60])),
        "gguf-unreadable",
    ),
}


@pytest.mark.parametrize("case", OFFSETS)
def test_offsets_are_refused(case: str, tmp_path: Path) -> None:
    refused(OFFSETS[case], tmp_path / "checkpoint")


@pytest.mark.parametrize("case", COUNTS)
def test_counts_are_refused(case: str, tmp_path: Path) -> None:
    refused(COUNTS[case], tmp_path / "checkpoint")
