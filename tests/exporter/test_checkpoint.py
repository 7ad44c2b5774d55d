"""Codes as we read them, against compressed-tensors' own decompressor."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from compressed_tensors.compressors import ModelCompressor
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from exporter.checkpoint import Dense, open_checkpoint
from exporter.quant.blocks import dequantise
from exporter.reference.quiet import quiet_libraries
from tests.checkpoints import VARIANTS

Factory = Callable[[str], Path]
PACKED = [name for name, v in VARIANTS.items() if (v.weights or v.mixed) and not v.sparse]


def decompressed(path: Path) -> dict[str, torch.Tensor]:
    """Every weight in float32, by the libraries that wrote the checkpoint."""
    with quiet_libraries():
        model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
        ModelCompressor.from_pretrained_model(model).decompress_model(model)
    return {name: tensor.float() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("variant", PACKED)
def test_packed_weights_equal_the_decompressor_s(variant: str, tiny_checkpoint: Factory) -> None:
    path = tiny_checkpoint(variant)
    expected = decompressed(path)
    packed = [w for w in open_checkpoint(path).weights.values() if not isinstance(w, Dense)]
    # Of the mixed variant, the last layer's MLP stays in floats.
    assert len(packed) == 7 * VARIANTS[variant].layers - 3 * bool(VARIANTS[variant].ignore)
    for weight in packed:
        rows = weight.shape[0]
        scales, zeros = weight.scales(), weight.zero_points()
        ours = dequantise(weight.codes(0, rows), scales, zeros, weight.bits)
        # The decompressor multiplies in the scale's bfloat16; ours is the float32 product.
        np.testing.assert_allclose(ours, expected[weight.name].numpy(), rtol=2**-7, atol=1e-6)


def test_shards_are_one_checkpoint(tiny_checkpoint: Factory) -> None:
    checkpoint = open_checkpoint(tiny_checkpoint("bf16-sharded"))
    assert len(checkpoint.weight_files) > 1
    whole = open_checkpoint(tiny_checkpoint("bf16-untied"))
    assert set(checkpoint.weights) == set(whole.weights)
    assert {f.path for f in checkpoint.source().files} > {p.name for p in checkpoint.weight_files}


def test_one_file_goes_before_an_index_as_in_transformers(
    tiny_checkpoint: Factory, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(tiny_checkpoint("bf16"), tmp_path / "copy"))
    older = {name: value + 1 for name, value in load_file(copy / "model.safetensors").items()}
    save_file(older, copy / "older.safetensors", {"format": "pt"})
    index = {"metadata": {}, "weight_map": dict.fromkeys(older, "older.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint, name = open_checkpoint(copy), "model.norm.weight"
    weight = checkpoint.weights[name]
    assert isinstance(weight, Dense)
    theirs = AutoModelForCausalLM.from_pretrained(copy, dtype=torch.float32).state_dict()[name]
    np.testing.assert_array_equal(weight.values(), theirs.numpy())
    assert [path.name for path in checkpoint.weight_files] == ["model.safetensors"]


def test_the_source_digest_follows_every_file(tiny_checkpoint: Factory, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_checkpoint("bf16"), copy)
    before = open_checkpoint(copy).source().digest
    assert before == open_checkpoint(tiny_checkpoint("bf16")).source().digest
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"note": 1}))
    assert open_checkpoint(copy).source().digest != before
