"""``self_check.json``: what a few positions of a text must give, on every device.

The exporter writes it with onnxruntime on the CPU; the page feeds the same tokens after it
has loaded, and compares.  A GPU that computes wrongly then shows before it is believed.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from manifests.base import Schema

SELF_CHECK_NAME = "self_check.json"
TokenId = Annotated[int, Field(ge=0)]


class TopLogits(Schema):
    """The highest logits after the token at ``position``, as float32 holds them.

    ``spread`` is the standard deviation of all the logits there: the unit of tolerances.  It is
    0 where all are equal, as those of weights of zeros are.
    """

    position: Annotated[int, Field(ge=0)]
    ids: tuple[TokenId, ...]
    values: tuple[float, ...]
    spread: Annotated[float, Field(ge=0)]


class ExpectedLogits(Schema):
    """What one target must give.

    ``tolerance``: how far a logit may be off, in spreads.
    """

    tolerance: Annotated[float, Field(gt=0)]
    positions: tuple[TopLogits, ...]


class SelfCheck(Schema):
    """A text, fed as a prompt of its first ``prompt_tokens`` tokens and then one by one."""

    format: Literal["tabwright-self-check"] = "tabwright-self-check"
    version: Literal[1] = 1
    tokens: tuple[TokenId, ...]
    prompt_tokens: Annotated[int, Field(ge=1)]
    targets: dict[str, ExpectedLogits]
