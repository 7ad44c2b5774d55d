"""FP8 weights as we read them, against compressed-tensors by way of transformers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from exporter.checkpoint import open_checkpoint
from exporter.checkpoint.float8 import Float8
from exporter.checkpoint.safetensors_file import open_safetensors
from exporter.checkpoint.scales import scales_of
from exporter.pipeline import export
from exporter.reference.model import load_checkpoint, read_config
from targets import find_targets
from tests.checkpoints import Variant, write_checkpoint

Factory = Callable[[str], Path]
#: Weights alone, which compressed-tensors calls naive-quantized.
GROUPED = Variant(
    float8=MappingProxyType(
        {"num_bits": 8, "type": "float", "strategy": "group", "group_size": 32, "dynamic": False}
    )
)


def _float8(path: Path) -> dict[str, Float8]:
    weights = open_checkpoint(path).weights
    return {name: weight for name, weight in weights.items() if isinstance(weight, Float8)}


def _expect_transformers_values(path: Path, label: str) -> None:
    model: Any = load_checkpoint(path, read_config(path), torch.float32, "cpu")
    expected = model.state_dict()
    weights = _float8(path)
    assert len(weights) == 14
    for name, weight in weights.items():
        assert weight.scheme == f"compressed-tensors float8_e4m3fn {label}"
        np.testing.assert_array_equal(weight.values(), expected[name].numpy())
        np.testing.assert_array_equal(weight.rows(3, 8), expected[name][3:8].numpy())


@pytest.mark.parametrize(
    ("variant", "label"), [("fp8-tensor", "per tensor"), ("fp8-channel", "per channel")]
)
def test_values_are_transformers_own(variant: str, label: str, tiny_checkpoint: Factory) -> None:
    _expect_transformers_values(tiny_checkpoint(variant), label)


def test_groups_and_weights_alone(tmp_path: Path) -> None:
    path = write_checkpoint(GROUPED, tmp_path / "checkpoint")
    assert open_checkpoint(path).remarks == ()
    _expect_transformers_values(path, "g32")


def test_values_worked_out_by_hand(tmp_path: Path) -> None:
    """OCP's E4M3: 1, its largest, its smallest, minus one and a half; then zero."""
    octets = np.array([[0x38, 0x7E, 0x01, 0xBC], [0, 0x80, 0x08, 0x77]], np.uint8)
    path = tmp_path / "model.safetensors"
    scale = np.array([[2.0], [3.0]], np.float32)
    save_file({"w": octets.view(ml_dtypes.float8_e4m3fn), "s": scale}, path)
    tensors = open_safetensors(path)
    weight = Float8(tensors["w"], scales_of(tensors["w"], tensors["s"]), "by hand")
    expected = [[2.0, 896.0, 2.0**-8, -3.0], [0.0, 0.0, 3 * 2.0**-6, 3 * 240.0]]
    np.testing.assert_array_equal(weight.values(), np.array(expected, np.float32))


@pytest.mark.parametrize(
    ("variant", "when"), [("fp8-tensor", "by fixed scales"), ("fp8-channel", "as it runs")]
)
def test_both_errors_and_the_activations_are_told(
    variant: str, when: str, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    targets = find_targets(["webgpu-q4", "webgpu-q8"])
    manifest = export(tiny_checkpoint(variant), targets, tmp_path / "out", runtime=page)
    for name, least, most in (("q4", 0.05, 0.12), ("q8", 0.002, 0.012)):
        rows = [row for row in manifest.weights[name].tensors if row.role == "linear"]
        assert {row.outcome for row in rows} == {"requantised"}
        assert all(row.rounding and least < row.rounding.rms < most for row in rows)
    (remark,) = manifest.source.remarks
    assert f"rounded to float8 {when}" in remark
