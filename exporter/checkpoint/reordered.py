"""Codes whose columns had to change places to lie in groups (GPTQ's act-order)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.errors import NotFinite
from exporter.checkpoint.weights import Dense, Packed
from exporter.quant.blocks import dequantise


@dataclass(frozen=True, eq=False)
class Reordered(Dense):
    """A linear [N, K]: as floats in its own column order, as codes in that of the groups.

    Whoever knows nothing of the order gets the right floats; the codes are only for who
    applies ``order`` to the activations too.

    Attributes:
        packed: the codes: their column j is the linear's column ``order[j]``.  Its rows
            come in any number.
        order: int32 [K], a permutation.
    """

    packed: Packed
    order: NDArray[np.int32]

    @property
    def name(self) -> str:
        """The module's weight name."""
        return self.packed.name

    @property
    def path(self) -> Path:
        """The file it is in."""
        return self.packed.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [N, K] of the values."""
        return self.packed.shape

    @property
    def scheme(self) -> str:
        """How the checkpoint keeps it, in words for the ledger."""
        return f"{self.packed.scheme} act-order"

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Values of rows ``start:stop``, float32, columns in the linear's own order.

        Raises:
            NotFinite: one of their scales is NaN or infinite.
        """
        scales, zeros = self.packed.scales()[start:stop], self.packed.zero_points()
        if not np.isfinite(scales).all():
            raise NotFinite(self.path, self.name)
        grouped = dequantise(
            self.packed.codes(start, stop),
            scales,
            None if zeros is None else zeros[start:stop],
            self.packed.bits,
        )
        values = np.empty_like(grouped)
        values[:, self.order] = grouped
        return values
