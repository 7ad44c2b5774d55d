"""Scales that stand beside a matrix in a tensor of their own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.errors import WrongShape
from exporter.checkpoint.safetensors_file import StoredTensor


@dataclass(frozen=True)
class Scales:
    """Scales of a matrix [N, K]: one for all of it, one a row, or one a group of a row.

    Attributes:
        groups: scales per row; a group is K / groups neighbours.
        divisor: what the file's numbers are divided by.
    """

    stored: StoredTensor
    shape: tuple[int, int]
    groups: int
    divisor: float = 1.0

    @property
    def label(self) -> str:
        """What shares a scale, in words for the ledger."""
        if len(self.stored.shape) < 2 and self.stored.nbytes == self.stored.dtype.itemsize:
            return "per tensor"
        return "per channel" if self.groups == 1 else f"g{self.shape[1] // self.groups}"

    def read(self) -> NDArray[np.float32]:
        """All scales, float32 [N, groups]; exact from bf16, fp16 and fp32 when undivided."""
        # What is no number is refused when it is stored.
        with np.errstate(invalid="ignore"):
            values = self.stored.read().astype(np.float32) / np.float32(self.divisor)
        return np.broadcast_to(values.reshape(-1, self.groups), (self.shape[0], self.groups))


def scales_of(weight: StoredTensor, scale: StoredTensor, divisor: float = 1.0) -> Scales:
    """The scales of ``weight``, whose kind the shape of ``scale`` tells.

    A single number goes for the whole tensor, [N] and [N, 1] for rows, [N, G] for groups.

    Raises:
        WrongShape: ``weight`` is no matrix, or ``scale`` does not fit it.
    """
    if len(weight.shape) != 2 or min(weight.shape) == 0:
        raise WrongShape(weight.path, weight.name, f"shape {list(weight.shape)} of no matrix")
    rows, columns = weight.shape
    groups = scale.shape[1] if len(scale.shape) == 2 else 1
    fits = scale.shape in ((), (1,), (rows,), (rows, groups)) and groups > 0
    if not fits or columns % groups or not scale.is_float:
        reason = f"{scale.dtype} {list(scale.shape)} scales no matrix {list(weight.shape)}"
        raise WrongShape(scale.path, scale.name, reason)
    return Scales(scale, (rows, columns), groups, divisor)
