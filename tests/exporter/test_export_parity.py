"""Bundles in onnxruntime against transformers in fp32 on the bundle's own weights.

The weights are put back into PyTorch by exporter.reference, whose reading of the ledger
shares no code with the exporter's packing.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tabwright
from exporter.pipeline import export
from exporter.prove import prove
from exporter.reference.model import load_bundle
from exporter.reference.weights import bundle_weights
from manifests.bundle import Manifest, Tensor, read_manifest
from targets import TARGETS, find_targets
from tests.checkpoints import VARIANTS, Variant
from tests.decoder import Decoder
from tests.made_once import exported_once

Factory = Callable[[str], Path]
#: Largest logit difference by activation width; logits of these models reach about 10.
TOLERANCE = {"float32": 1e-3, "float16": 5e-2}
IDS = np.random.default_rng(7).integers(3, 512, 40)


@pytest.fixture(scope="module")
def bundle_of(
    tiny_checkpoint: Factory, page: Path, tmp_path_factory: pytest.TempPathFactory
) -> Factory:
    return exported_once(tiny_checkpoint, tuple(TARGETS.values()), page, tmp_path_factory)


def _reference(
    checkpoint: Path, bundle: Path, manifest: Manifest, target: str
) -> NDArray[np.float32]:
    weights = manifest.weights[manifest.targets[target].weights]
    model = load_bundle(checkpoint, bundle, weights, "cpu")
    with torch.inference_mode():
        logits: NDArray[np.float32] = model(torch.from_numpy(IDS[None])).logits[0].numpy()
    return logits


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_pytorch_s(
    variant: str, target: str, tiny_checkpoint: Factory, bundle_of: Factory
) -> None:
    bundle = bundle_of(variant)
    manifest = read_manifest(bundle)
    expected = _reference(tiny_checkpoint(variant), bundle, manifest, target)
    dtype = manifest.targets[target].activation_dtype
    logits = Decoder(bundle, target).step(IDS, keep=0)
    assert np.abs(logits - expected).max() < TOLERANCE[dtype]
    if dtype == "float32":
        np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))


@pytest.mark.parametrize("target", ["webgpu-q4", "wasm-q4"])
def test_the_cache_continues_where_it_stopped(target: str, bundle_of: Factory) -> None:
    bundle = bundle_of("w4a16-g32")
    whole = Decoder(bundle, target).step(IDS, keep=0)
    decoder = Decoder(bundle, target)
    decoder.step(IDS[:16], keep=1)
    decoder.step(IDS[16:39], keep=1)
    last = decoder.step(IDS[39:], keep=1)
    assert last.shape == (1, 512)
    np.testing.assert_allclose(last[0], whole[-1], atol=1e-4)


#: GGML's types that are integer codes, and their width.
GGUF_BITS = {"Q4_0": 4, "Q8_0": 8}


def _code_bits(variant: Variant, row: Tensor) -> int | None:
    """Width of the codes that the variant's scheme gives ``row``; None where it has floats."""
    if variant.gguf is not None:
        # Embedding and head, too.
        return GGUF_BITS.get(variant.gguf)
    if row.role == "head" and variant.layout is not None and variant.layout.head:
        return variant.layout.bits
    if row.role != "linear" or _named(row, variant.ignore):
        return None
    if variant.layout is not None:
        return variant.layout.bits
    if variant.bitsandbytes is not None:
        return 8 if variant.bitsandbytes.get("load_in_8bit") else None
    own = (scheme for name, scheme in (variant.mixed or {}).items() if _named(row, (name,)))
    scheme = next(own, variant.weights)
    return scheme["num_bits"] if scheme else None


def _named(row: Tensor, expressions: Iterable[str]) -> bool:
    module = row.name.removesuffix(".weight")
    return any(re.fullmatch(text.removeprefix("re:"), module) for text in expressions)


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_ledger_tells_the_truth(
    variant: str, tiny_checkpoint: Factory, bundle_of: Factory
) -> None:
    """Codes are exact where the set is as wide as they are, and nothing else but floats is."""
    bundle = bundle_of(variant)
    manifest, proof = read_manifest(bundle), prove(bundle, tiny_checkpoint(variant))
    assert set(manifest.weights) == {"q4", "q8"}
    for name, weights in manifest.weights.items():
        carried = 0
        for row in weights.tensors:
            bits = _code_bits(VARIANTS[variant], row)
            width = {"q4": 4, "q8": 8}[name] if row.role == "linear" else 8
            exact = row.role == "float" or (bits is not None and bits <= width)
            assert (row.outcome == "exact") == exact, row.name
            assert (row.rounding is None) == exact
            carried += math.prod(row.shape) if exact and row.role != "float" else 0
        assert proof.weights[name].codes_compared == carried
        assert proof.weights[name].codes_changed == 0


@pytest.mark.parametrize(
    ("variant", "q4", "q8"),
    [
        # Of 14 linears three stay floats and one has 8 bits.
        ("w4a16-mixed", 10, 11),
        ("gguf-q4-0", 14, 14),
        ("gguf-q4-0-untied", 14, 14),
        ("gguf-q8-0", 0, 14),
    ],
)
def test_so_many_linears_are_exact(variant: str, q4: int, q8: int, bundle_of: Factory) -> None:
    """The rule of the test before this one, in numbers: it cannot be true of nothing."""
    rows = {
        name: [row for row in weights.tensors if row.role == "linear"]
        for name, weights in read_manifest(bundle_of(variant)).weights.items()
    }
    assert {name: len(linears) for name, linears in rows.items()} == {"q4": 14, "q8": 14}
    exact = {name: [r for r in linears if r.outcome == "exact"] for name, linears in rows.items()}
    assert {name: len(linears) for name, linears in exact.items()} == {"q4": q4, "q8": q8}


@pytest.mark.parametrize("variant", ["bf16", "w4a16-g32", "w4a16-g32-asymmetric", "w8a16-channel"])
def test_the_ledger_s_errors_are_those_of_the_stored_values(
    variant: str, tiny_checkpoint: Factory, bundle_of: Factory
) -> None:
    from tests.exporter.test_checkpoint import decompressed

    source = decompressed(tiny_checkpoint(variant))
    manifest = read_manifest(bundle_of(variant))
    for weights in manifest.weights.values():
        for row, stored in bundle_weights(bundle_of(variant), weights):
            error = torch.from_numpy(stored) - source[row.name]
            relative = (error.norm() / source[row.name].norm()).item()
            told = row.rounding.rms if row.rounding else 0.0
            # compressed-tensors multiplies in bfloat16, which adds up to 2**-9 of its own.
            slack = 0.0 if row.source in ("bfloat16", "float16", "float32") else 2**-8
            assert relative == pytest.approx(told, abs=1e-6 + slack), row.name


@pytest.mark.parametrize("variant", ["bf16", "w4a16-g32-untied"])
def test_head_and_embedding_take_the_width_that_is_asked_for(
    variant: str, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    checkpoint, bundle = tiny_checkpoint(variant), tmp_path / "bundle"
    targets = find_targets(["webgpu-q4", "wasm-q4"], head_bits=4)
    manifest = export(checkpoint, targets, bundle, runtime=page)
    widths = {row.role: row.bits for row in manifest.weights["q4"].tensors}
    assert set(widths.values()) == {4, None}
    assert len(widths.keys() & {"tied", "head", "embedding"}) == (1 if variant == "bf16" else 2)
    for target in manifest.targets:
        expected = _reference(checkpoint, bundle, manifest, target)
        logits = Decoder(bundle, target).step(IDS, keep=0)
        assert np.abs(logits - expected).max() < TOLERANCE["float32"]
        np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))


def test_the_commands_settings_reach_the_weights(tiny_checkpoint: Factory, tmp_path: Path) -> None:
    errors = {}
    for rounding in ("search", "nearest"):
        bundle = tmp_path / rounding
        arguments = ["export", str(tiny_checkpoint("bf16")), "--target", "webgpu-q4"]
        settings = ["--head-bits", "4", "--rounding", rounding, "-o", str(bundle)]
        assert tabwright.call([*arguments, *settings]) == 0
        rows = read_manifest(bundle).weights["q4"].tensors
        errors[rounding] = {row.name: row.rounding.rms for row in rows if row.rounding}
        assert {row.bits for row in rows} == {4, None}
    head = "model.embed_tokens.weight"
    assert errors["search"].pop(head) == errors["nearest"].pop(head)
    assert len(errors["search"]) == len(errors["nearest"]) == 14
    assert all(errors["search"][name] < rms for name, rms in errors["nearest"].items())
    assert tabwright.call([*arguments, "--head-bits", "3", "-o", str(bundle)]) == 2
