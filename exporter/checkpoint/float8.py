"""FP8 linears: float8_e4m3fn [N, K] with a scale per tensor, channel or group.

The 256 values are not evenly spaced, so no affine code stands for them: the product is
had as floats, exactly, and each target rounds it a second time.
"""

from __future__ import annotations

from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.errors import WrongShape
from exporter.checkpoint.safetensors_file import StoredTensor
from exporter.checkpoint.scales import Scales
from exporter.checkpoint.weights import OfOneTensor

_E4M3 = np.dtype(ml_dtypes.float8_e4m3fn)


@dataclass(frozen=True)
class Float8(OfOneTensor):
    """One FP8 linear; ``format`` names what wrote it."""

    stored: StoredTensor
    scale: Scales
    format: str

    def __post_init__(self) -> None:
        """Check the type.

        Raises:
            WrongShape: another type than float8_e4m3fn.
        """
        if self.stored.dtype != _E4M3:
            reason = f"is {self.stored.dtype}, expected {_E4M3}"
            raise WrongShape(self.stored.path, self.stored.name, reason)

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [N, K]."""
        return self.scale.shape

    @property
    def scheme(self) -> str:
        """How the checkpoint keeps it, in words for the ledger."""
        return f"{self.format} float8_e4m3fn {self.scale.label}"

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Value times scale, float32 [rows, K].

        Exact under 16-bit scales: 4 and at most 11 significant bits need 15 of 24.
        """
        values = self.stored.read_rows(start, stop).astype(np.float32)
        grouped = values.reshape(len(values), self.scale.groups, -1)
        # What overflows is infinite, and refused when it is stored.
        with np.errstate(over="ignore", invalid="ignore"):
            grouped *= self.scale.read()[start:stop, :, None]
        return values
