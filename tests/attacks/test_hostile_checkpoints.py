"""Checkpoints in floats that are broken or hostile: each is refused with its own code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from exporter.pipeline import export
from manifests.errors import TabwrightError
from targets import TARGETS
from tests.attacks.damage import (
    Damage,
    Q,
    cut_short,
    in_config,
    in_tensors,
    poison,
    refused,
    remove,
    write_file,
)

Factory = Callable[[str], Path]
_EMBEDDING = "model.embed_tokens.weight"

CASES: dict[str, tuple[str, Damage, str]] = {
    "no config": ("bf16", remove("config.json"), "not-a-checkpoint"),
    "config is no JSON": ("bf16", write_file("config.json", b"{"), "not-a-checkpoint"),
    "config is a list": ("bf16", write_file("config.json", b"[]"), "not-a-checkpoint"),
    "no tokenizer": ("bf16", remove("tokenizer.json"), "not-a-checkpoint"),
    "tokenizer is no JSON": ("bf16", write_file("tokenizer.json", b"{"), "tokenizer-unreadable"),
    "tokenizer of nothing": ("bf16", write_file("tokenizer.json", b"{}"), "tokenizer-unreadable"),
    "an adapter beside the weights": (
        "bf16",
        write_file("adapter_config.json", b"{}"),
        "adapter-unmerged",
    ),
    "no weights": ("bf16", remove("model.safetensors"), "not-a-checkpoint"),
    "no model_type": ("bf16", in_config(model_type=None), "not-a-checkpoint"),
    "no sizes": ("bf16", in_config(hidden_size=None), "not-a-checkpoint"),
    "a billion layers": ("bf16", in_config(num_hidden_layers=10**9), "not-a-checkpoint"),
    "a size that is a text": ("bf16", in_config(vocab_size="many"), "not-a-checkpoint"),
    "heads that do not divide": (
        "bf16",
        in_config(num_attention_heads=7, head_dim=None),
        "graph-undeclared",
    ),
    "rotary settings of no kind": (
        "bf16",
        in_config(rope_parameters={"rope_type": "spiral"}),
        "graph-undeclared",
    ),
    "scheme is a list": ("bf16", in_config(quantization_config=[1]), "not-a-checkpoint"),
    "scheme without a name": ("bf16", in_config(quantization_config={}), "unsupported-scheme"),
    "unknown family": ("bf16", in_config(model_type="mamba"), "unsupported-architecture"),
    "mixture of experts": (
        "bf16",
        in_config(model_type="mixtral", num_local_experts=8),
        "unsupported-architecture",
    ),
    "multimodal": (
        "bf16",
        in_config(model_type="gemma3", text_config={}, vision_config={"depth": 2}, vocab_size=None),
        "unsupported-architecture",
    ),
    "encoder-decoder": (
        "bf16",
        in_config(model_type="t5", is_encoder_decoder=True, hidden_size=None),
        "unsupported-architecture",
    ),
    "key heads by layer": ("bf16", in_config(num_key_value_heads=[1, 2]), "not-a-checkpoint"),
    "heads that no kernel takes": ("bf16", in_config(head_dim=40), "graph-undeclared"),
    "rotation wider than memory": ("bf16", in_config(head_dim=1 << 20), "graph-undeclared"),
    "rotation that ends before it starts": (
        "bf16",
        in_config(
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "original_max_position_embeddings": -1,
                "short_factor": [1.0] * 16,
                "long_factor": [1.0] * 16,
            }
        ),
        "graph-undeclared",
    ),
    "rotation without angles": (
        "bf16",
        in_config(rope_parameters={"rope_type": "default", "rope_theta": -1.0}),
        "graph-undeclared",
    ),
    "cut short": ("bf16", cut_short, "shard-corrupt"),
    "tensor gone": ("bf16", in_tensors(lambda t: t.pop(f"{Q}.weight")), "tensor-missing"),
    "tensor too many": (
        "bf16",
        in_tensors(lambda t: t.update({f"{Q}.lora_A.weight": torch.zeros(4, 4)})),
        "tensor-unknown",
    ),
    "tensor of a wrong shape": (
        "bf16",
        in_tensors(lambda t: t.update({f"{Q}.weight": torch.zeros(4, 4)})),
        "wrong-shape",
    ),
    "a value that is no number": ("bf16", in_tensors(poison(f"{Q}.weight")), "tensor-not-finite"),
    "a value that no scale reaches": (
        "bf16",
        in_tensors(poison(f"{Q}.weight", 1e30)),
        "tensor-out-of-range",
    ),
    "a norm that is infinite": (
        "bf16",
        in_tensors(poison("model.norm.weight", float("inf"))),
        "tensor-not-finite",
    ),
    "an embedding of integers": (
        "bf16",
        in_tensors(lambda t: t.update({_EMBEDDING: torch.zeros(512, 128, dtype=torch.int8)})),
        "wrong-shape",
    ),
    "a norm in float64": (
        "bf16",
        in_tensors(lambda t: t.update({"model.norm.weight": torch.ones(128, dtype=torch.float64)})),
        "wrong-shape",
    ),
    "config of another size": ("bf16", in_config(intermediate_size=160), "wrong-shape"),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_its_code(case: str, tiny_checkpoint: Factory, tmp_path: Path) -> None:
    variant, damage, code = CASES[case]
    refused(tiny_checkpoint(variant), damage, code, tmp_path)


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TabwrightError) as caught:
        export(tmp_path / "nothing", (TARGETS["wasm-q4"],), tmp_path / "out", runtime=tmp_path)
    assert caught.value.code == "not-a-checkpoint"
