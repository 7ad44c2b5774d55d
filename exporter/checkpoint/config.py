"""``config.json``: what the exporter itself reads of it, checked before it is believed.

Counts have caps far above any model that fits a browser, so that a hostile config cannot
ask for a graph of a billion layers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from exporter.checkpoint import strict_json
from exporter.checkpoint.errors import NotACheckpoint

#: Inputs or outputs of a linear.
MAX_WIDTH = 1 << 20
_Count = Annotated[int, Field(ge=1, le=MAX_WIDTH)]
_Layers = Annotated[int, Field(ge=1, le=1024)]
#: A word of code, which is told to the user as it is.
Name = Annotated[str, Field(pattern=r"^[\w.-]{1,100}$")]
TokenId = Annotated[int, Field(ge=0, le=1 << 24)]


class Part(BaseModel):
    """A part of somebody else's JSON: keys that we do not read may be there."""

    model_config = ConfigDict(extra="ignore", frozen=True)


P = TypeVar("P", bound=Part)


class DecoderConfig(Part):
    """The sizes that a bundle's manifest tells, by transformers' names."""

    model_type: Name
    architectures: tuple[Name, ...] = ()
    vocab_size: Annotated[int, Field(ge=1, le=1 << 24)]
    # transformers' older families keep the names that their papers had.
    hidden_size: _Count = Field(validation_alias=AliasChoices("hidden_size", "n_embd", "d_model"))
    num_hidden_layers: _Layers = Field(
        validation_alias=AliasChoices("num_hidden_layers", "n_layer", "n_layers")
    )
    num_attention_heads: _Count = Field(
        validation_alias=AliasChoices("num_attention_heads", "n_head", "n_heads")
    )
    num_key_value_heads: _Count | None = None
    head_dim: _Count | None = None
    max_position_embeddings: Annotated[int, Field(ge=1, le=1 << 24)] = Field(
        validation_alias=AliasChoices("max_position_embeddings", "n_positions", "max_seq_len")
    )
    tie_word_embeddings: bool = False
    bos_token_id: TokenId | None = None
    eos_token_id: TokenId | tuple[TokenId, ...] | None = None


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of the checkpoint that ``path`` is in.

    Raises:
        NotACheckpoint: missing, too large, or no JSON object.
    """
    if not path.is_file():
        raise NotACheckpoint(path.parent, f"{path.name} is missing")
    if path.stat().st_size > strict_json.MAX_BYTES:
        reason = f"{path.name} is larger than {strict_json.MAX_BYTES} bytes"
        raise NotACheckpoint(path.parent, reason)
    return parse_object(path.read_bytes(), path)


def parse_object(data: bytes, path: Path) -> dict[str, Any]:
    """The JSON object that the file ``path`` of a checkpoint holds.

    Raises:
        NotACheckpoint: it is none.
    """
    try:
        value = strict_json.parse(data)
    except ValueError as error:
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
