"""Every family in every kind of compressed checkpoint.

Each pair is held from both ends: the ledger against the checkpoint, read a second time by
exporter.prove, and the graph in onnxruntime against transformers in fp32 on the bundle's
weights.  compressed-tensors' W4A16 is in tests/exporter/test_families.py.
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
from targets import TARGETS
from tests.decoder import Decoder
from tests.families import FAMILY_CASES, PLAIN, write_family

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
    "gptq-act-order": Scheme("webgpu-q4", exact=True),
    "llm-int8": Scheme("wasm-q8", exact=True),
    "nf4-double": Scheme("wasm-q8", exact=False),
    "fp8-channel": Scheme("wasm-q8", exact=False),
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("family", CASES)
def test_pair(family: str, scheme: str, page: Path, tmp_path: Path) -> None:
    checkpoint = write_family(replace(CASES[family], scheme=scheme), tmp_path / "checkpoint")
    bundle, target = tmp_path / "bundle", SCHEMES[scheme].target
    manifest = export(checkpoint, (TARGETS[target],), bundle, runtime=page)
    [weights] = manifest.weights.values()
    outcomes = {row.outcome for row in weights.tensors if row.role == "linear"}
    assert outcomes == {"exact" if SCHEMES[scheme].exact else "requantised"}
    prove(bundle, checkpoint)
    model = load_bundle(checkpoint, bundle, weights, "cpu")
    with torch.inference_mode():
        expected = model(torch.from_numpy(IDS[None])).logits[0].numpy()
    logits = Decoder(bundle, target).step(IDS, keep=0)
    assert np.abs(logits - expected).max() < 1e-2
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))
