"""The error of a second rounding, summed up a block at a time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from manifests.bundle import Rounding


class RoundingBuilder:
    """Accumulates :class:`manifests.bundle.Rounding` over blocks of one tensor."""

    def __init__(self) -> None:
        self._error_squares = 0.0
        self._source_squares = 0.0
        self._max_error = 0.0
        self._max_source = 0.0

    def add(self, source: NDArray[np.float32], stored: NDArray[np.float32]) -> None:
        """Add a block of the source's values and of the values stored for them."""
        error = stored - source
        self._error_squares += float(np.square(error, dtype=np.float64).sum())
        self._source_squares += float(np.square(source, dtype=np.float64).sum())
        self._max_error = max(self._max_error, float(np.abs(error).max(initial=0)))
        self._max_source = max(self._max_source, float(np.abs(source).max(initial=0)))

    @property
    def exact(self) -> bool:
        """Whether every stored value equalled its source."""
        return self._max_error == 0.0

    def build(self) -> Rounding:
        """The relative errors; 0 for a tensor of zeros that stayed zeros."""
        return Rounding(
            rms=float(np.sqrt(_ratio(self._error_squares, self._source_squares))),
            max=_ratio(self._max_error, self._max_source),
        )


def _ratio(part: float, whole: float) -> float:
    """``part / whole``; an error on a source of zeros is infinite."""
    if part == 0.0:
        return 0.0
    return part / whole if whole else float("inf")
