"""What the runtime must know of a model, read off its configs."""

from __future__ import annotations

import json
from math import prod

from exporter.checkpoint import Checkpoint, Dense, Packed
from manifests.bundle import Model


def describe_model(
    checkpoint: Checkpoint, weights: list[Dense | Packed], context_length: int
) -> Model:
    """The manifest's ``model``: ``weights`` are those that the graph uses."""
    config = checkpoint.config
    heads = int(config["num_attention_heads"])
    eos = config.get("eos_token_id")
    generation = checkpoint.file("generation_config.json")
    if generation is not None:
        # generation_config.json is what transformers stops by; it may list several.
        eos = json.loads(generation.read_bytes()).get("eos_token_id", eos)
    ends = eos if isinstance(eos, list) else [] if eos is None else [eos]
    return Model(
        name=checkpoint.path.resolve().name,
        architecture=str((config.get("architectures") or [config["model_type"]])[0]),
        model_type=str(config["model_type"]),
        parameters=sum(prod(weight.shape) for weight in weights),
        vocab_size=int(config["vocab_size"]),
        layers=int(config["num_hidden_layers"]),
        kv_heads=int(config.get("num_key_value_heads") or heads),
        head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
        context_length=context_length,
        bos_token_id=config.get("bos_token_id"),
        eos_token_ids=tuple(ends),
    )
