"""LLM.int8() and NF4 as we read them, against bitsandbytes itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from exporter.checkpoint import Dense, open_checkpoint
from exporter.compress.errors import ExtraMissing
from exporter.pipeline import export
from exporter.quant.blocks import dequantise
from exporter.reference import model as reference
from exporter.reference.errors import MisreadByKernel
from manifests.bundle import Manifest
from targets import find_targets
from tests.exporter.test_int_quantized import stored_codes

Factory = Callable[[str], Path]
NF4 = ("nf4", "nf4-double")


@pytest.fixture(scope="module")
def bundle_of(
    tiny_checkpoint: Factory, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Manifest]]:
    made: dict[str, tuple[Path, Manifest]] = {}

    def bundle(variant: str) -> tuple[Path, Manifest]:
        if variant not in made:
            page = tmp_path_factory.mktemp("page")
            (page / "index.html").write_text("<!doctype html>")
            targets = find_targets(["webgpu-q4", "webgpu-q8"])
            out = tmp_path_factory.mktemp("out") / variant
            manifest = export(tiny_checkpoint(variant), targets, out, runtime=page)
            made[variant] = out, manifest
        return made[variant]

    return bundle


def _linears(path: Path) -> dict[str, Any]:
    weights = open_checkpoint(path).weights
    return {name: w for name, w in weights.items() if w.scheme.startswith("bitsandbytes")}


def _values(weight: Any) -> NDArray[np.float32]:
    if isinstance(weight, Dense):
        return weight.values()
    codes = weight.codes(0, weight.shape[0])
    return dequantise(codes, weight.scales(), weight.zero_points(), weight.bits)


def _by_bitsandbytes(tensors: dict[str, torch.Tensor], name: str) -> torch.Tensor:
    """An NF4 weight by bitsandbytes' kernel, flattened into whole blocks.

    As a matrix whose rows are no whole blocks its CPU kernel would misread it.
    """
    import bitsandbytes

    parts = {key: value for key, value in tensors.items() if key.startswith(f"{name}.")}
    state = bitsandbytes.functional.QuantState.from_dict(dict(parts), torch.device("cpu"))
    shape = tuple(state.shape)
    state.shape = torch.Size((shape[0] * shape[1] // state.blocksize, state.blocksize))
    values: torch.Tensor = bitsandbytes.functional.dequantize_4bit(tensors[name], state)
    return values.float().reshape(shape)


@pytest.mark.parametrize("variant", NF4)
def test_nf4_values_are_bitsandbytes_own(variant: str, tiny_checkpoint: Factory) -> None:
    path = tiny_checkpoint(variant)
    tensors = load_file(path / "model.safetensors")
    linears = _linears(path)
    assert len(linears) == 14
    for name, weight in linears.items():
        assert isinstance(weight, Dense)
        expected = _by_bitsandbytes(tensors, name).numpy()
        np.testing.assert_array_equal(weight.values(), expected)
        # Any rows, also those that begin inside a block.
        for start, stop in ((0, 1), (1, 4), (5, weight.shape[0])):
            np.testing.assert_array_equal(weight.rows(start, stop), expected[start:stop])


def test_nf4_is_near_the_weights_it_was_made_of(tiny_checkpoint: Factory) -> None:
    source = load_file(tiny_checkpoint("bf16") / "model.safetensors")
    for name, weight in _linears(tiny_checkpoint("nf4-double")).items():
        expected = source[name].float().numpy()
        error = np.linalg.norm(weight.values() - expected) / np.linalg.norm(expected)
        assert 0.08 < error < 0.11


def test_int8_codes_are_the_file_s_and_values_bitsandbytes_own(tiny_checkpoint: Factory) -> None:
    import bitsandbytes

    path = tiny_checkpoint("llm-int8")
    tensors = load_file(path / "model.safetensors")
    linears = _linears(path)
    assert len(linears) == 14
    for name, weight in linears.items():
        codes = weight.codes(0, weight.shape[0])
        np.testing.assert_array_equal(codes.astype(int) - 128, tensors[name].numpy().astype(int))
        scb = tensors[name.removesuffix("weight") + "SCB"]
        expected = bitsandbytes.functional.int8_vectorwise_dequant(tensors[name], scb).numpy()
        # It multiplies twice where we multiply once: the last bit may differ.
        np.testing.assert_array_max_ulp(_values(weight), expected, 1)


def test_int8_arrives_unchanged_and_nf4_at_the_error_that_is_told(
    tiny_checkpoint: Factory, bundle_of: Callable[[str], tuple[Path, Manifest]]
) -> None:
    bundle, manifest = bundle_of("llm-int8")
    tensors = load_file(tiny_checkpoint("llm-int8") / "model.safetensors")
    for row in manifest.weights["q8"].tensors:
        if row.role == "linear":
            assert (row.outcome, row.scale_dtype) == ("exact", "float32")
            found = stored_codes(bundle, row).astype(int) - 128
            np.testing.assert_array_equal(found, tensors[row.name].numpy().astype(int))
    q4 = [row for row in manifest.weights["q4"].tensors if row.role == "linear"]
    assert {row.outcome for row in q4} == {"requantised"}

    for variant in NF4:
        _, manifest = bundle_of(variant)
        for name, least, most in (("q4", 0.07, 0.12), ("q8", 0.003, 0.012)):
            rows = [row for row in manifest.weights[name].tensors if row.role == "linear"]
            assert {row.outcome for row in rows} == {"requantised"}
            assert all(row.rounding and least < row.rounding.rms < most for row in rows)


def test_what_is_not_reproduced_is_said(
    bundle_of: Callable[[str], tuple[Path, Manifest]], tiny_checkpoint: Factory
) -> None:
    for variant, word in (("llm-int8", "activations"), ("nf4", "choose one of 8 bits")):
        (remark,) = open_checkpoint(tiny_checkpoint(variant)).remarks
        assert word in remark
        assert bundle_of(variant)[1].source.remarks == (remark,)


def test_pytorch_s_reference_has_the_same_weights(tiny_checkpoint: Factory) -> None:
    for variant, ulp in (("llm-int8", 1), ("nf4-double", 0)):
        path = tiny_checkpoint(variant)
        config = reference.read_config(path)
        model = reference.load_checkpoint(path, config, torch.float32, "cpu")
        found = model.state_dict()
        for name, weight in _linears(path).items():
            np.testing.assert_array_max_ulp(_values(weight), found[name].numpy(), ulp)
        with torch.inference_mode():
            assert model(torch.arange(3, 13)[None]).logits.dtype == torch.float32


def test_a_kernel_that_would_misread_is_not_believed(tiny_checkpoint: Factory) -> None:
    path = tiny_checkpoint("nf4")
    with pytest.raises(MisreadByKernel, match=r"q_proj\.weight"):
        reference.load_checkpoint(path, reference.read_config(path), torch.float32, "cpu")


def test_the_misreading_is_still_there() -> None:
    """When this fails, bitsandbytes has mended its kernel: drop MisreadByKernel."""
    import bitsandbytes

    weight = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    back = bitsandbytes.functional.dequantize_4bit(
        *bitsandbytes.functional.quantize_4bit(weight, blocksize=64, quant_type="nf4")
    )
    assert (back - weight).norm() / weight.norm() > 0.15


def test_the_missing_package_is_named(
    tiny_checkpoint: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {"accelerate": SimpleNamespace(), "bitsandbytes": None}
    monkeypatch.setattr(reference, "find_spec", found.get)
    path = tiny_checkpoint("llm-int8")
    with pytest.raises(ExtraMissing, match="bitsandbytes"):
        reference.load_checkpoint(path, reference.read_config(path), torch.float32, "cpu")


def test_the_state_is_read_as_json(tiny_checkpoint: Factory) -> None:
    """What the tests' checkpoints hold is what the reader documents."""
    tensors = load_file(tiny_checkpoint("nf4-double") / "model.safetensors")
    key = "model.layers.0.mlp.up_proj.weight.quant_state.bitsandbytes__nf4"
    state = json.loads(tensors[key].numpy().tobytes())
    assert (state["blocksize"], state["nested_blocksize"]) == (64, 256)
    assert state["shape"] == [192, 128]
