"""W8A8 weights as we read and store them, against the file and transformers."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

import tabwright
from exporter.checkpoint import open_checkpoint
from exporter.checkpoint.errors import UnsupportedScheme
from exporter.checkpoint.int8 import Int8
from exporter.pipeline import export
from exporter.quant.blocks import dequantise
from exporter.reference.model import load_bundle, load_checkpoint, read_config
from manifests.bundle import Tensor
from targets import find_targets
from tests.checkpoints import VARIANTS, Variant, edit_config, write_checkpoint

Factory = Callable[[str], Path]
_INT8 = {"num_bits": 8, "type": "int", "dynamic": False}
OTHERS = {
    "per tensor symmetric": {"strategy": "tensor", "symmetric": True},
    "per channel asymmetric": {"strategy": "channel", "symmetric": False},
}


def stored_codes(bundle: Path, row: Tensor) -> NDArray[np.uint8]:
    """An 8-bit row's codes in the shard, uint8 [N, K]."""
    assert row.bits == 8
    assert row.codes is not None
    shard = bundle / row.codes.file
    found = np.fromfile(shard, np.uint8, row.codes.length, offset=row.codes.offset)
    return found.reshape(row.shape)


def test_codes_arrive_unchanged(tiny_checkpoint: Factory, page: Path, tmp_path: Path) -> None:
    checkpoint = tiny_checkpoint("w8a8")
    tensors = load_file(checkpoint / "model.safetensors")
    out = tmp_path / "out"
    manifest = export(checkpoint, find_targets(["webgpu-q8"]), out, runtime=page)
    linears = [row for row in manifest.weights["q8"].tensors if row.role == "linear"]
    assert len(linears) == 14
    for row in linears:
        assert row.outcome == "exact"
        assert row.source == "compressed-tensors int8 per channel symmetric"
        found = stored_codes(out, row).astype(int) - 128
        np.testing.assert_array_equal(found, tensors[row.name].numpy().astype(int))


@pytest.mark.parametrize("label", OTHERS)
def test_other_scales_and_zero_points(label: str, page: Path, tmp_path: Path) -> None:
    variant = Variant(
        weights=MappingProxyType({**_INT8, **OTHERS[label]}),
        activations=VARIANTS["w8a8"].activations,
    )
    path = write_checkpoint(variant, tmp_path / "checkpoint")
    expected = load_checkpoint(path, read_config(path), torch.float32, "cpu").state_dict()
    weights = [w for w in open_checkpoint(path).weights.values() if isinstance(w, Int8)]
    assert len(weights) == 14
    for weight in weights:
        assert weight.scheme == f"compressed-tensors int8 {label}"
        codes = weight.codes(0, weight.shape[0])
        ours = dequantise(codes, weight.scales(), weight.zero_points(), weight.bits)
        np.testing.assert_array_equal(ours, expected[weight.name].numpy())
    targets = find_targets(["webgpu-q8"])
    manifest = export(path, targets, tmp_path / "out", runtime=page)
    rows = manifest.weights["q8"].tensors
    assert {row.outcome for row in rows if row.role == "linear"} == {"exact"}
    model = load_bundle(path, tmp_path / "out", manifest.weights["q8"], "cpu").state_dict()
    for weight in weights:
        assert torch.equal(model[weight.name], expected[weight.name])


def test_w4a8_packed_is_told_alike_and_unpacked_is_refused(
    tiny_checkpoint: Factory, tmp_path: Path
) -> None:
    """compressed-tensors puts W4A8 into int8 unless told to pack it."""
    activations = VARIANTS["w8a8"].activations
    packed = Path(shutil.copytree(tiny_checkpoint("w4a16-g32"), tmp_path / "packed"))
    scheme = json.loads((packed / "config.json").read_text())["quantization_config"]
    for group in scheme["config_groups"].values():
        group["input_activations"] = dict(activations or {})
    edit_config(packed, quantization_config=scheme)
    checkpoint = open_checkpoint(packed)
    assert "rounded to int8 as it runs" in checkpoint.remarks[0]
    assert set(checkpoint.weights) == set(open_checkpoint(tiny_checkpoint("w4a16-g32")).weights)

    unpacked = Variant(weights=VARIANTS["w4a16-g32"].weights, activations=activations)
    with pytest.raises(UnsupportedScheme, match="int-quantized int4"):
        open_checkpoint(write_checkpoint(unpacked, tmp_path / "unpacked"))


def test_transformers_goes_on_rounding_activations_and_a_bundle_does_not(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    """The export loss of a W8A8 checkpoint holds this, and the head's rounding."""
    path = tiny_checkpoint("w8a8")
    ids = torch.arange(3, 43)[None]
    manifest = export(path, find_targets(["webgpu-q8"]), tmp_path / "out", runtime=page)
    theirs = load_checkpoint(path, read_config(path), torch.float32, "cpu")
    ours = load_bundle(path, tmp_path / "out", manifest.weights["q8"], "cpu")
    with torch.inference_mode():
        # Head and embedding are one tensor; with it the weights are the same everywhere.
        theirs.get_input_embeddings().weight.copy_(ours.get_input_embeddings().weight)
        rounded = theirs(ids).logits
        for module in theirs.modules():
            if hasattr(module, "quantization_scheme"):
                module.quantization_enabled = False
        floats, bundled = theirs(ids).logits, ours(ids).logits
    torch.testing.assert_close(bundled, floats, rtol=0, atol=1e-4)
    assert (rounded - floats).abs().max() > 0.1


def test_the_commands_say_so(
    tiny_checkpoint: Factory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint, bundle = str(tiny_checkpoint("w8a8")), str(tmp_path / "bundle")
    remark = "activations are meant to be rounded to int8 as it runs"
    for arguments in (
        ["inspect", checkpoint],
        ["export", checkpoint, "--target", "webgpu-q8", "-o", bundle],
        ["inspect", bundle],
    ):
        assert tabwright.call(arguments) == 0
        assert remark in " ".join(capsys.readouterr().out.split())
    assert tabwright.call(["inspect", checkpoint, "--format", "json"]) == 0
    assert remark in json.loads(capsys.readouterr().out)["remarks"][0]
