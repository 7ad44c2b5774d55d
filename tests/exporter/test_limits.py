"""What is sound, but cannot be compressed, exported or proven, is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
from transformers import AutoModelForCausalLM

from exporter.compress.chain import compress
from exporter.compress.errors import AlreadyCompressed, GroupDoesNotFit
from exporter.compress.models import choose_group_size
from exporter.compress.recipes import plan
from exporter.lower.errors import GraphUnexpected
from exporter.lower.interface import find_head
from exporter.pipeline import TooLargeForTarget, export
from exporter.prove import prove
from exporter.prove.errors import NoProof
from targets import TARGETS

Factory = Callable[[str], Path]


def test_too_large_for_target(tiny_checkpoint: Factory, page: Path, tmp_path: Path) -> None:
    # The tied head alone is 512 x 128 codes of 8 bits: 64 KiB.
    small = replace(TARGETS["wasm-q4"], heap_bytes=64 << 10)
    with pytest.raises(TooLargeForTarget, match=r"wasm-q4: \d+ MiB of codes"):
        export(tiny_checkpoint("bf16"), (small,), tmp_path / "out", runtime=page)
    assert not (tmp_path / "out").exists()


def test_graph_unexpected() -> None:
    copied = ir.node("Identity", [ir.Value(name="hidden")])
    with pytest.raises(GraphUnexpected, match="no product above the logits"):
        find_head(copied.outputs[0])


def test_proof_unsupported(tiny_checkpoint: Factory, page: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("bf16"), checkpoint)
    (checkpoint / "model.safetensors").rename(checkpoint / "weights")
    index = {"weight_map": {"model.norm.weight": "weights"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    export(checkpoint, (TARGETS["wasm-q4"],), tmp_path / "out", runtime=page)
    with pytest.raises(NoProof, match="cannot be proven"):
        prove(tmp_path / "out", checkpoint)


def test_already_compressed(tiny_checkpoint: Factory, tmp_path: Path) -> None:
    with pytest.raises(AlreadyCompressed, match="compressed-tensors"):
        compress(tiny_checkpoint("w4a16-g32"), tmp_path / "out", *plan(["w4a16-rtn"]))
    assert not (tmp_path / "out").exists()


def test_group_does_not_fit(tiny_checkpoint: Factory) -> None:
    folder = tiny_checkpoint("bf16-odd")
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert choose_group_size(folder, model, 32) == 32
    with pytest.raises(GroupDoesNotFit, match=r"96 inputs, which groups of 64"):
        choose_group_size(folder, model, 64)
