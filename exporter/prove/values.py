"""What both sides are turned into before they are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Codes:
    """Rows of an integer matrix, each value ``steps * scales``.

    ``steps``: codes less their zero points, int32 [rows, K]; ``scales``: one per value,
    float32 [rows, K], so that no layout of groups is assumed.
    """

    steps: NDArray[np.int32]
    scales: Floats

    def values(self) -> Floats:
        """The float32 products, [rows, K]."""
        return self.steps.astype(np.float32) * self.scales

    def columns(self, order: NDArray[np.int32]) -> Codes:
        """With column ``order[j]`` in place ``j``."""
        return Codes(self.steps[:, order], self.scales[:, order])


@dataclass(frozen=True)
class Matrix:
    """A tensor that is read in blocks of rows, as codes where it has any."""

    shape: tuple[int, ...]
    read: Callable[[int, int], Codes | Floats]


def turned(matrix: Matrix) -> Matrix:
    """The transpose of ``matrix`` [K, N], which is read whole."""
    rows, columns = matrix.shape
    values = floats(matrix.read(0, rows))
    return Matrix((columns, rows), lambda start, stop: values[:, start:stop].T)


def floats(rows: Codes | Floats) -> Floats:
    """Rows as float32 values."""
    return rows.values() if isinstance(rows, Codes) else rows


def unpack(words: NDArray[np.uint32], bits: int) -> NDArray[np.int32]:
    """Codes of 32-bit words [R, W], lowest bits first: int32 [R, W * 32 / bits]."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words[:, :, None] >> shifts) & np.uint32((1 << bits) - 1)
    return codes.reshape(len(words), -1).astype(np.int32)
