"""What ``tabwright diagnose`` finds: where a browser leaves PyTorch, tensor by tensor."""

from __future__ import annotations

from typing import Literal

from manifests.base import Real, Schema
from manifests.page import LoopKind


class Point(Schema):
    """A tensor between two operators: what goes into a module, or comes out of it.

    ``module`` is PyTorch's path; ``layer`` its decoder layer, absent outside of them.
    """

    module: str
    side: Literal["input", "output"]
    layer: int | None = None

    def __str__(self) -> str:
        """As it is told, e.g. ``model.layers.3.mlp.down_proj (output)``."""
        return f"{self.module} ({self.side})"


class Deviation(Schema):
    """How far the browser's values at a point are from PyTorch's.

    ``relative`` is ||browser - PyTorch|| / ||PyTorch|| of the token where that is largest;
    ``largest`` the largest single difference of all.
    """

    point: Point
    relative: Real
    largest: Real


class Diagnosis(Schema):
    """The whole finding.

    ``layers`` were compared first: the hidden state that each layer is given, and the
    logits.  ``tensors`` lie between the last of them that is within ``tolerance`` and the
    first that is not; ``first`` is the first of these beyond it.  ``changed`` are weights
    that the ledger calls exact and whose stored values are not the checkpoint's.
    """

    target: str
    loop: LoopKind
    tokens: int
    tolerance: float
    layers: tuple[Deviation, ...]
    tensors: tuple[Deviation, ...] = ()
    first: Point | None = None
    changed: tuple[str, ...] = ()
