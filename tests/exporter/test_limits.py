"""What is sound, but cannot be compressed, exported or proven, is refused by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter.checkpoint.errors import TensorMissing, TensorUnknown, WrongShape
from exporter.compress.chain import compress
from exporter.compress.errors import AlreadyCompressed, GroupDoesNotFit
from exporter.compress.models import choose_group_size, load_model
from exporter.compress.recipes import plan
from exporter.lower.errors import GraphUnexpected
from exporter.lower.interface import find_head
from exporter.pipeline import TooLargeForTarget, export
from exporter.prove import prove
from exporter.prove.errors import NoProof
from exporter.reference.errors import NotRunnable
from targets import TARGETS
from tests.checkpoints import edit_config

Factory = Callable[[str], Path]
Tensors = dict[str, torch.Tensor]
UP = "model.layers.1.mlp.up_proj"


#: Two layers of 122,880 codes of 4 bits, a tied head of 512 x 128 of 8, and five norms.
CODES = 2 * 122_880 // 2 + 512 * 128 + 5 * 128 * 4
#: As the page holds them: a float32 for every 32 codes, and the head's codes twice, the second
#: time with float16 scales, for it is the embedding as well.
HELD = CODES + (2 * 122_880 + 512 * 128) // 32 * 4 + 512 * 128 + 512 * 128 // 32 * 2


@pytest.mark.parametrize("room", [CODES - 1, HELD - 1])
def test_too_large_for_target(
    room: int, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    small = replace(TARGETS["wasm-q4"], heap_bytes=room)
    with pytest.raises(TooLargeForTarget, match=r"wasm-q4: 0 MiB of weights"):
        export(tiny_checkpoint("bf16"), (small,), tmp_path / "out", runtime=page)
    assert not (tmp_path / "out").exists()


def test_what_fills_the_target_is_not_too_large(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    full = replace(TARGETS["wasm-q4"], heap_bytes=HELD)
    manifest = export(tiny_checkpoint("bf16"), (full,), tmp_path / "out", runtime=page)
    assert manifest.targets["wasm-q4"].weight_bytes == HELD


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
    model = load_model(folder)
    assert choose_group_size(folder, model, 32) == 32
    with pytest.raises(GroupDoesNotFit, match=r"96 inputs, which groups of 64"):
        choose_group_size(folder, model, 64)


def _cut(tensors: Tensors) -> None:
    tensors[f"{UP}.weight"] = tensors[f"{UP}.weight"][:, :64].contiguous()


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda tensors: tensors.pop(f"{UP}.weight"), TensorMissing),
        (lambda tensors: tensors.update({f"{UP}.bias": torch.ones(192)}), TensorUnknown),
        (_cut, WrongShape),
    ],
)
def test_a_weight_that_would_be_made_up_or_lost_is_not_compressed(
    change: Callable[[Tensors], object],
    error: type[Exception],
    tiny_checkpoint: Factory,
    tmp_path: Path,
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("bf16"), tmp_path / "checkpoint"))
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(error, match="up_proj"):
        load_model(folder)


def test_what_transformers_cannot_run_is_not_compressed(
    tiny_checkpoint: Factory, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_checkpoint("bf16"), tmp_path / "checkpoint"))
    edit_config(folder, model_type="no-such-model")
    with pytest.raises(NotRunnable):
        load_model(folder)
