"""Folders as optimum writes them, from the graph that it wrote of a tiny GPT-2."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import onnx

#: Made by tests/data/make_gpt2_optimum.py; model.safetensors are the weights it was made of.
GPT2 = Path(__file__).parent / "data" / "gpt2-optimum"
TOKENIZER = ("tokenizer.json", "tokenizer_config.json")

Change = Callable[[onnx.ModelProto], None]


def write_folder(tokenizer: Path, out: Path, change: Change | None = None) -> Path:
    """config.json, a tokenizer and model.onnx, which ``change`` may change."""
    out.mkdir(parents=True)
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, out)
    shutil.copy(GPT2 / "config.json", out)
    if change is None:
        shutil.copy(GPT2 / "model.onnx", out)
    else:
        model = onnx.load(GPT2 / "model.onnx")
        change(model)
        (out / "model.onnx").write_bytes(model.SerializeToString())
    return out


def write_checkpoint(tokenizer: Path, out: Path) -> Path:
    """The checkpoint that the graph was made of."""
    out.mkdir(parents=True)
    for name in TOKENIZER:
        shutil.copy(tokenizer / name, out)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(GPT2 / name, out)
    return out
