"""What the runtime must know of a model, read off its configs."""

from __future__ import annotations

from math import prod

from exporter.checkpoint import Checkpoint, Dense, Packed
from exporter.checkpoint.config import Part, TokenId, parse_object, read_part
from manifests.bundle import Model

_GENERATION = "generation_config.json"


class _Generation(Part):
    eos_token_id: TokenId | tuple[TokenId, ...] | None = None


def describe_model(
    checkpoint: Checkpoint, weights: list[Dense | Packed], context_length: int
) -> Model:
    """The manifest's ``model``: ``weights`` are those that its graphs use."""
    decoder = checkpoint.decoder
    eos = decoder.eos_token_id
    generation = checkpoint.documents.read(_GENERATION)
    if generation is not None:
        # generation_config.json is what transformers stops by; it may list several.
        path = checkpoint.path / _GENERATION
        stops = read_part(_Generation, parse_object(generation, path), path)
        eos = stops.eos_token_id if stops.eos_token_id is not None else eos
    return Model(
        name=checkpoint.path.resolve().name,
        architecture=next(iter(decoder.architectures), decoder.model_type),
        model_type=decoder.model_type,
        parameters=sum(prod(weight.shape) for weight in weights),
        vocab_size=decoder.vocab_size,
        layers=decoder.num_hidden_layers,
        context_length=context_length,
        bos_token_id=decoder.bos_token_id,
        eos_token_ids=() if eos is None else (eos,) if isinstance(eos, int) else eos,
    )
