"""How many values are exactly zero, and whether they lie as 2:4 sparsity wants them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from manifests.bundle import Zeros

#: 2:4 sparsity (as NVIDIA's sparse tensor cores read it): of this many neighbours
#: along K, at least half are zero.
_GROUP = 4


class CensusBuilder:
    """Counts the zeros of a source matrix and of what is stored for it, block by block."""

    def __init__(self) -> None:
        self._values = 0
        self._source = 0
        self._stored = 0
        self._two_of_four = True

    def add(self, source: NDArray[np.bool_], stored: NDArray[np.bool_]) -> None:
        """Add rows: where the source is zero and where the stored values are, bool [rows, K]."""
        self._values += stored.size
        self._stored += int(np.count_nonzero(stored))
        self._source += (
            int(np.count_nonzero(stored)) if source is stored else int(np.count_nonzero(source))
        )
        # Most matrices are not sparse, and the first rows say so.
        self._two_of_four = self._two_of_four and _two_of_four(stored)

    def build(self) -> Zeros:
        """The shares, of all values added."""
        total = max(self._values, 1)
        return Zeros(
            source=self._source / total,
            stored=self._stored / total,
            pattern="2:4" if self._two_of_four and self._values else None,
        )


def zeros_of_codes(
    codes: NDArray[np.uint8],
    scales: NDArray[np.float32],
    zero_points: NDArray[np.uint8] | None,
    bits: int,
) -> NDArray[np.bool_]:
    """Where codes [rows, K] under scales and zero points [rows, K/block] are exactly zero."""
    rows, columns = codes.shape
    blocks = codes.reshape(rows, scales.shape[1], -1)
    middle = np.uint8(1 << (bits - 1)) if zero_points is None else zero_points[..., None]
    zeros: NDArray[np.bool_] = (blocks == middle) | (scales == 0)[..., None]
    return zeros.reshape(rows, columns)


def _two_of_four(zeros: NDArray[np.bool_]) -> bool:
    rows, columns = zeros.shape
    if columns % _GROUP:
        return False
    groups = zeros.reshape(rows, -1, _GROUP)
    return bool((groups.sum(axis=-1, dtype=np.uint8) >= _GROUP // 2).all())
