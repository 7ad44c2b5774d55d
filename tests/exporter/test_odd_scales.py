"""Scales that look wrong, but have one meaning: they are carried like any other."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from exporter.pipeline import export
from exporter.prove import prove
from exporter.reference.weights import bundle_weights
from manifests.bundle import read_manifest
from targets import TARGETS
from tests.exporter.test_checkpoint import decompressed

Factory = Callable[[str], Path]
_Q = "model.layers.0.self_attn.q_proj"


@pytest.mark.parametrize("target", ["webgpu-q4", "webgpu-q8"])
def test_scales_of_zero_and_below_keep_their_meaning(
    target: str, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    # AutoRound writes negative scales, and a row of zeros may have a scale of zero.
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint("w4a16-g32"), checkpoint)
    tensors = load_file(checkpoint / "model.safetensors")
    scale = tensors[f"{_Q}.weight_scale"]
    scale[0] = 0
    scale[1] *= -1
    save_file(tensors, checkpoint / "model.safetensors", {"format": "pt"})
    expected = decompressed(checkpoint)[f"{_Q}.weight"].numpy()
    export(checkpoint, (TARGETS[target],), tmp_path / "out", runtime=page)
    manifest = read_manifest(tmp_path / "out")
    (weights,) = manifest.weights.values()
    values = {row.name: values for row, values in bundle_weights(tmp_path / "out", weights)}
    assert not values[f"{_Q}.weight"][0].any()
    # The decompressor multiplies in the scale's bfloat16; ours is the float32 product.
    np.testing.assert_allclose(values[f"{_Q}.weight"], expected, rtol=2**-7, atol=1e-6)
    (proven,) = prove(tmp_path / "out", checkpoint).weights.values()
    assert proven.codes_changed == 0
