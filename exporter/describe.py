"""What the runtime must know of a model, read off its configs."""

from __future__ import annotations

from math import prod

from exporter.checkpoint import Checkpoint, Dense, Packed
from exporter.checkpoint.config import Part, read_json, read_part
from manifests.bundle import Model


class _Generation(Part):
    eos_token_id: int | tuple[int, ...] | None = None


def describe_model(
    checkpoint: Checkpoint, weights: list[Dense | Packed], context_length: int
) -> Model:
    """The manifest's ``model``: ``weights`` are those that the graph uses."""
    decoder = checkpoint.decoder
    eos = decoder.eos_token_id
    generation = checkpoint.file("generation_config.json")
    if generation is not None:
        # generation_config.json is what transformers stops by; it may list several.
        stops = read_part(_Generation, read_json(generation), generation)
        eos = stops.eos_token_id if stops.eos_token_id is not None else eos
    heads = decoder.num_attention_heads
    return Model(
        name=checkpoint.path.resolve().name,
        architecture=next(iter(decoder.architectures), decoder.model_type),
        model_type=decoder.model_type,
        parameters=sum(prod(weight.shape) for weight in weights),
        vocab_size=decoder.vocab_size,
        layers=decoder.num_hidden_layers,
        kv_heads=decoder.num_key_value_heads or heads,
        head_dim=decoder.head_dim or decoder.hidden_size // heads,
        context_length=context_length,
        bos_token_id=decoder.bos_token_id,
        eos_token_ids=() if eos is None else (eos,) if isinstance(eos, int) else eos,
    )
