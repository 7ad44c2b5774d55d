"""Every family in every kind of compressed checkpoint that is read in a way of its own.

Each pair is held from both ends: the ledger against the checkpoint, read a second time by
exporter.prove, and the graph in onnxruntime against transformers in fp32 on the bundle's
weights.  A pair takes about half a second of CPU.

Left out, since a family changes nothing in them that a pair here does not have, and Llama
has them in tests/exporter/test_export_parity.py: other groups and widths of what is here
(g64, GPTQ of 8 bits and in its second format, W8A16 by group, NF4 of one quantisation);
W8A8, which is W8A16 by channel but for a remark; compressed-tensors' act-order, which ends
in the same permutation as GPTQ's; the other bitmasks, over floats and over FP8; W4A16 mixed,
whose rules name Llama's modules; GGUF's other types; and adapters over compressed bases, in
tests/exporter/test_adapter_bundle.py.  Plain checkpoints and symmetric W4A16 of every family
are in tests/exporter/test_families.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from exporter.graph.families import FAMILIES
from exporter.pipeline import export
from exporter.prove import prove
from exporter.reference.model import load_bundle
from manifests.bundle import Manifest
from targets import TARGETS
from tests.decoder import Decoder
from tests.exporter.test_adapter import write_adapter
from tests.exporter.test_gguf import CASES as GGUF_CASES
from tests.families import FAMILY_CASES, PLAIN, write_family
from tests.gguf_files import write_gguf

IDS = np.random.default_rng(11).integers(3, 512, 24)
#: One plain case of each family.
CASES = {
    family: next(t for t in FAMILY_CASES.values() if (t.model_type, t.scheme) == (family, PLAIN))
    for family in sorted(FAMILIES)
}


@dataclass(frozen=True)
class Scheme:
    """Where a variant's linears go, and whether they arrive as they were."""

    target: str
    exact: bool


SCHEMES = {
    "awq": Scheme("webgpu-q4", exact=True),
    "fp8-channel": Scheme("wasm-q8", exact=False),
    "fp8-tensor": Scheme("wasm-q8", exact=False),
    "gptq-act-order": Scheme("webgpu-q4", exact=True),
    "llm-int8": Scheme("wasm-q8", exact=True),
    "nf4-double": Scheme("wasm-q8", exact=False),
    "sparse-24-w8a8": Scheme("wasm-q8", exact=True),
    "w4a16-g32-asymmetric": Scheme("webgpu-q4", exact=True),
    "w8a16-channel": Scheme("wasm-q8", exact=True),
}
#: One GGUF case of each family that is read from GGUF: all but LFM2.
GGUF = {case.tiny.model_type: case for case in reversed(tuple(GGUF_CASES.values()))}
#: A module of every kind of layer that a family names in its own way.
LORA_MODULES = {
    "lfm2": ["q_proj", "out_proj", "in_proj", "w2"],
    "phi3": ["qkv_proj", "gate_up_proj"],
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", CASES)
def test_pair(family: str, scheme: str, page: Path, tmp_path: Path) -> None:
    case = replace(CASES[family], scheme=scheme)
    if (family, scheme) == ("lfm2", "awq"):
        # AWQ's groups of 64 do not divide the width of 224.
        case = replace(case, settings={**case.settings, "block_multiple_of": 64})
    checkpoint = write_family(case, tmp_path / "checkpoint")
    bundle, target = tmp_path / "bundle", SCHEMES[scheme].target
    manifest = export(checkpoint, (TARGETS[target],), bundle, runtime=page)
    assert _outcomes(manifest) == {"exact" if SCHEMES[scheme].exact else "requantised"}
    prove(bundle, checkpoint)
    _hold_logits(checkpoint, bundle, manifest)


@pytest.mark.parametrize("family", GGUF)
def test_gguf(family: str, page: Path, tmp_path: Path) -> None:
    case, bundle = GGUF[family], tmp_path / "bundle"
    source = write_family(case.tiny, tmp_path / "source")
    checkpoint = write_gguf(source, tmp_path / "model.gguf", "Q4_0", case.change)
    manifest = export(checkpoint, (TARGETS["webgpu-q4"],), bundle, runtime=page)
    assert _outcomes(manifest) == {"exact"}
    prove(bundle, checkpoint)
    _hold_logits(checkpoint, bundle, manifest)


@pytest.mark.parametrize("family", CASES)
def test_adapter(family: str, page: Path, tmp_path: Path) -> None:
    """Merged modules are rounded, the codes of the others are the base's."""
    checkpoint = write_family(CASES[family], tmp_path / "checkpoint")
    modules = LORA_MODULES.get(family, ["q_proj", "down_proj"])
    adapter = write_adapter(checkpoint, tmp_path / "adapter", target_modules=modules)
    bundle = tmp_path / "bundle"
    manifest = export(checkpoint, (TARGETS["wasm-q8"],), bundle, runtime=page, adapter=adapter)
    [weights] = manifest.weights.values()
    merged = {row.name.split(".")[-2] for row in weights.tensors if "LoRA" in row.source}
    assert merged == set(modules)
    prove(bundle, checkpoint, adapter)
    _hold_logits(checkpoint, bundle, manifest)


def _outcomes(manifest: Manifest) -> set[str]:
    [weights] = manifest.weights.values()
    return {row.outcome for row in weights.tensors if row.role == "linear"}


def _hold_logits(checkpoint: Path, bundle: Path, manifest: Manifest) -> None:
    """The graph's against those of transformers on the bundle's weights."""
    [target], [weights] = manifest.targets, manifest.weights.values()
    model = load_bundle(checkpoint, bundle, weights, "cpu")
    with torch.inference_mode():
        expected = model(torch.from_numpy(IDS[None])).logits[0].numpy()
    logits = Decoder(bundle, target).step(IDS, keep=0)
    assert np.abs(logits - expected).max() < 1e-2
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))
