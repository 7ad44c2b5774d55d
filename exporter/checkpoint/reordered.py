"""Codes whose columns have to change places to lie in groups (GPTQ's act-order)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.errors import NotFinite, UnsupportedScheme, WrongShape
from exporter.checkpoint.safetensors_file import StoredTensor
from exporter.checkpoint.weights import Dense, Packed, packed_rows


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
        scales = self.packed.scales()
        if not np.isfinite(scales[start:stop]).all():
            raise NotFinite(self.path, self.name)
        grouped = packed_rows(self.packed, scales, self.packed.zero_points(), start, stop)
        values = np.empty_like(grouped)
        values[:, self.order] = grouped
        return values


def group_order(g_idx: StoredTensor, groups: int, method: str) -> NDArray[np.int32] | None:
    """The columns sorted by group, in each group as they come; None when they are so.

    Args:
        g_idx: the group of each column, int32 [K].
        groups: how many there are.
        method: the format's name, for the error.

    Raises:
        WrongShape: a column belongs to a group that is not there.
        UnsupportedScheme: the groups are not of equal size.
    """
    group_of: NDArray[np.int32] = g_idx.read()
    if group_of.min() < 0 or group_of.max() >= groups:
        raise WrongShape(g_idx.path, g_idx.name, f"names a group outside of {groups}")
    sizes = np.bincount(group_of, minlength=groups)
    if sizes.min() != sizes.max():
        module = g_idx.name.rpartition(".")[0]
        reason = f"{method} with groups of {sizes.min()} to {sizes.max()} inputs ({module})"
        raise UnsupportedScheme(g_idx.path, reason)
    if (group_of[1:] >= group_of[:-1]).all():
        return None
    return np.argsort(group_of, kind="stable").astype(np.int32)
