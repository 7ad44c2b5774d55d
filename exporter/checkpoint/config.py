"""``config.json``: what the exporter itself reads of it, checked before it is believed.

Counts have caps far above any model that fits a browser, so that a hostile config cannot
ask for a graph of a billion layers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.checkpoint.errors import NotACheckpoint

_MAX_JSON_BYTES = 64 << 20

_Count = Annotated[int, Field(ge=1, le=1 << 20)]
_Layers = Annotated[int, Field(ge=1, le=1024)]
_TokenId = Annotated[int, Field(ge=0, le=1 << 24)]


class Part(BaseModel):
    """A part of somebody else's JSON: keys that we do not read may be there."""

    model_config = ConfigDict(extra="ignore", frozen=True)


P = TypeVar("P", bound=Part)


class DecoderConfig(Part):
    """The sizes that a bundle's manifest tells, by transformers' names."""

    model_type: str
    architectures: tuple[str, ...] = ()
    vocab_size: Annotated[int, Field(ge=1, le=1 << 24)]
    hidden_size: _Count
    num_hidden_layers: _Layers
    num_attention_heads: _Count
    num_key_value_heads: _Count | None = None
    head_dim: _Count | None = None
    max_position_embeddings: Annotated[int, Field(ge=1, le=1 << 24)]
    tie_word_embeddings: bool = False
    bos_token_id: _TokenId | None = None
    eos_token_id: _TokenId | tuple[_TokenId, ...] | None = None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of the checkpoint that ``path`` is in.

    Raises:
        NotACheckpoint: missing, too large, or no JSON object.
    """
    if not path.is_file():
        raise NotACheckpoint(path.parent, f"{path.name} is missing")
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise NotACheckpoint(path.parent, f"{path.name} is larger than {_MAX_JSON_BYTES} bytes")
    try:
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise NotACheckpoint(path.parent, f"{path.name} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise NotACheckpoint(path.parent, f"{path.name} is not a JSON object")
    return value


def read_part(part: type[P], value: object, path: Path, where: str = "") -> P:
    """Check ``value``, found at ``where`` in the file ``path``, against ``part``.

    Raises:
        NotACheckpoint: names the first field that does not fit.
    """
    try:
        return part.model_validate(value)
    except (ValidationError, RecursionError) as error:
        reason = str(error)
        if isinstance(error, ValidationError):
            first = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(step) for step in (where, *first["loc"]) if step != "")
            reason = f"{field}: {first['msg']}"
        raise NotACheckpoint(path.parent, f"{path.name}: {reason}") from None
