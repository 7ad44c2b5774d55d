"""NF4 linears: 4-bit indices into 16 uneven values, times one factor per block."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.safetensors_file import StoredTensor
from exporter.checkpoint.weights import OfOneTensor

#: The dtype that bitsandbytes rounds a product to, by torch's name.
DTYPES: dict[str, np.dtype[Any]] = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}


@dataclass(frozen=True)
class Nested:
    """How double quantisation keeps the factors: levels[code] * absmax + offset."""

    levels: NDArray[np.float32]
    absmax: StoredTensor
    block_size: int
    offset: float

    def restore(self, codes: NDArray[np.uint8], start: int) -> NDArray[np.float32]:
        """Factors float32 [n] of the codes ``start : start + n``."""
        stop = start + len(codes)
        first, last = start // self.block_size, -(-stop // self.block_size)
        outer = _spread(self.absmax.read_rows(first, last), self.block_size, start, stop)
        with np.errstate(over="ignore", invalid="ignore"):
            return self.levels[codes] * outer + np.float32(self.offset)


@dataclass(frozen=True)
class Nf4(OfOneTensor):
    """One NF4 linear.

    Attributes:
        stored: uint8 [N * K / 2, 1], the first of two codes in the high nibble.
        levels: float32 [16], what the codes stand for.
        absmax: per block of the flattened matrix; float32, or uint8 when ``nested``.
        dtype: the weight's dtype before compression, one of :data:`DTYPES`.
    """

    stored: StoredTensor
    matrix: tuple[int, int]
    levels: NDArray[np.float32]
    absmax: StoredTensor
    block_size: int
    dtype: str
    nested: Nested | None

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [N, K]."""
        return self.matrix

    @property
    def scheme(self) -> str:
        """How the checkpoint keeps it, in words for the ledger."""
        return f"bitsandbytes nf4 b{self.block_size}" + (" double" if self.nested else "")

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Values of rows ``start:stop``, float32 [rows, K], bit for bit bitsandbytes' own.

        That includes rounding the product to the dtype that the weight had, as its
        kernels do.
        """
        columns = self.matrix[1]
        at, end = start * columns, stop * columns
        octets = self.stored.read_rows(at // 2, end // 2)
        codes = np.concatenate((octets >> 4, octets & 0x0F), axis=1).reshape(-1)
        first, last = at // self.block_size, -(-end // self.block_size)
        absmax = self.absmax.read_rows(first, last)
        factors = self.nested.restore(absmax, first) if self.nested else absmax
        # What overflows is infinite, and refused when it is stored.
        with np.errstate(over="ignore", invalid="ignore"):
            values = self.levels[codes] * _spread(factors, self.block_size, at, end)
            rounded = values.astype(DTYPES[self.dtype])
        return rounded.astype(np.float32).reshape(-1, columns)


def _spread(
    factors: NDArray[np.float32], block_size: int, start: int, stop: int
) -> NDArray[np.float32]:
    """Factors of the elements ``start:stop``; ``factors`` begins with start's block."""
    skip = start % block_size
    return np.repeat(factors, block_size)[skip : skip + stop - start]
