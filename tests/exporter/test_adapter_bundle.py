"""Bundles with a LoRA merged, in onnxruntime, against PEFT's own merge in PyTorch.

PEFT merges into the floats that a base stands for; transformers makes these floats where
it can read the format.  Eight bits keep the second rounding small enough to compare logits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import LlamaForCausalLM

from exporter.pipeline import export
from exporter.reference.model import load_checkpoint, read_config
from exporter.reference.quiet import quiet_libraries
from exporter.reference.weights import bundle_weights
from manifests.bundle import read_manifest
from targets import find_targets
from tests.decoder import Decoder
from tests.exporter.test_adapter import write_adapter

Factory = Callable[[str], Path]
BASES = [
    "bf16",
    "w4a16-g32-asymmetric",
    "w4a16-act-order",
    "w8a8",
    "fp8-channel",
    "sparse-24-fp8",
    "gptq-act-order",
    "awq",
    "llm-int8",
    "nf4-double",
    "gguf-q4-0",
    "gguf-q8-0",
]
IDS = np.random.default_rng(11).integers(3, 512, 40)


@pytest.fixture(scope="module")
def adapter(tiny_checkpoint: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A distilled student's: r=16, alpha=32 on q_proj and v_proj."""
    folder = tmp_path_factory.mktemp("adapter")
    return write_adapter(tiny_checkpoint("bf16"), folder, r=16, lora_alpha=32)


def _floats(base: Path) -> Any:
    """The base in float32, with nothing left of its format: no rounding of activations."""
    config: Any = read_config(base)
    state = load_checkpoint(base, config, torch.float32, "cpu").state_dict()
    plain: Any = read_config(base)
    if hasattr(plain, "quantization_config"):
        del plain.quantization_config
    untyped: Any = LlamaForCausalLM
    model = untyped(plain).float().eval()
    model.load_state_dict({name: state[name].float() for name in model.state_dict()})
    return model


def _logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.from_numpy(IDS[None])).logits[0]
    return logits


def _divergence(expected: torch.Tensor, found: NDArray[np.float32]) -> float:
    """Mean KL divergence from ``expected``, in nats."""
    p, q = (torch.log_softmax(x.double(), -1) for x in (expected, torch.from_numpy(found)))
    return float((p.exp() * (p - q)).sum(-1).mean())


@pytest.mark.parametrize("base", BASES)
def test_answers_are_those_of_peft_s_merge(
    base: str, adapter: Path, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    checkpoint, bundle = tiny_checkpoint(base), tmp_path / "bundle"
    targets = find_targets(["webgpu-q8", "wasm-q8"])
    export(checkpoint, targets, bundle, runtime=page, adapter=adapter)
    with quiet_libraries():
        plain = _floats(checkpoint)
        before = _logits(plain)
        merged: Any = PeftModel.from_pretrained(plain, adapter).merge_and_unload()
    expected, state = _logits(merged), merged.state_dict()
    for target in targets:
        logits = Decoder(bundle, target.name).step(IDS, keep=0)
        divergence = _divergence(expected, logits)
        assert divergence < 2e-3
        # A bundle of the base alone would be farther off by far.
        assert _divergence(before, logits) > 50 * divergence
    for row, values in bundle_weights(bundle, read_manifest(bundle).weights["q8"]):
        error = np.linalg.norm(values - state[row.name].numpy())
        told = row.rounding.rms if row.rounding else 0.0
        relative = error / np.linalg.norm(state[row.name].numpy())
        # compressed-tensors and bitsandbytes multiply in 16 bits: up to 2**-9 of their own.
        assert relative == pytest.approx(told, abs=2**-9), row.name
