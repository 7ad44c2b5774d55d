"""What the runtime must know of a model, read off its configs."""

from __future__ import annotations

from math import prod

from exporter.checkpoint import Checkpoint, Dense, Packed
from exporter.checkpoint.config import Part, read_json, read_part
from exporter.graph.skeleton import Layout
from manifests.bundle import Model


class _Generation(Part):
    eos_token_id: int | tuple[int, ...] | None = None


def describe_model(checkpoint: Checkpoint, weights: list[Dense | Packed], layout: Layout) -> Model:
    """The manifest's ``model``: ``weights`` are those that the graph of ``layout`` uses."""
    decoder = checkpoint.decoder
    eos = decoder.eos_token_id
    generation = checkpoint.file("generation_config.json")
    if generation is not None:
        # generation_config.json is what transformers stops by; it may list several.
        stops = read_part(_Generation, read_json(generation), generation)
        eos = stops.eos_token_id if stops.eos_token_id is not None else eos
    return Model(
        name=checkpoint.path.resolve().name,
        architecture=next(iter(decoder.architectures), decoder.model_type),
        model_type=decoder.model_type,
        parameters=sum(prod(weight.shape) for weight in weights),
        vocab_size=decoder.vocab_size,
        layers=layout.layers,
        kv_heads=layout.kv_heads,
        head_dim=layout.head_dim,
        context_length=layout.context_length,
        bos_token_id=decoder.bos_token_id,
        eos_token_ids=() if eos is None else (eos,) if isinstance(eos, int) else eos,
    )
