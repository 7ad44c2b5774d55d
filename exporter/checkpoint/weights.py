"""What a checkpoint's weights are to the rest of the exporter: dense or packed.

Both are read in blocks of rows, so that memory stays that of one block.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.safetensors_file import StoredTensor
from exporter.quant.blocks import dequantise

#: Float32 bytes of the blocks that :func:`row_blocks` cuts: what is done with a block goes
#: over it a dozen times, so it stays in the processor's cache.
BLOCK_BYTES = 1 << 20


def row_blocks(rows: int, columns: int, multiple: int = 1) -> Iterator[tuple[int, int]]:
    """Cut ``rows`` into ranges whose float32 values take about :data:`BLOCK_BYTES`.

    ``multiple``: every range but the last holds a multiple of so many rows.
    """
    step = max(1, BLOCK_BYTES // (4 * max(columns, 1)) // multiple) * multiple
    for start in range(0, rows, step):
        yield start, min(start + step, rows)


class Dense(ABC):
    """A tensor whose values are floats, or can only be had as floats."""

    @property
    @abstractmethod
    def name(self) -> str:
        """The module's weight name, e.g. ``model.layers.0.mlp.up_proj.weight``."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The file it is in."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""

    @property
    @abstractmethod
    def scheme(self) -> str:
        """How the checkpoint keeps it, in words for the ledger."""

    @abstractmethod
    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Values of rows ``start:stop``, float32."""

    def values(self) -> NDArray[np.float32]:
        """All values, float32."""
        return self.rows(0, self.shape[0])


class OfOneTensor(Dense):
    """A weight that goes by the name and place of one tensor, ``stored``."""

    stored: StoredTensor

    @property
    def name(self) -> str:
        """The tensor's name, which is the module's weight name."""
        return self.stored.name

    @property
    def path(self) -> Path:
        """The file it is in."""
        return self.stored.path


@dataclass(frozen=True)
class Stored(OfOneTensor):
    """A tensor that the file holds as floats; bf16, fp16 and fp32 are exact in float32."""

    stored: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The tensor's shape."""
        return self.stored.shape

    @property
    def scheme(self) -> str:
        """The file's dtype."""
        return self.stored.dtype.name

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Values of rows ``start:stop``, float32."""
        return self.stored.read_rows(start, stop).astype(np.float32)


@dataclass(frozen=True)
class Transposed(OfOneTensor):
    """A matrix [N, K] that the file holds as [K, N]."""

    stored: StoredTensor

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [N, K]."""
        return self.stored.shape[::-1]

    @property
    def scheme(self) -> str:
        """The file's dtype."""
        return f"{self.stored.dtype.name}, transposed"

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Values of rows ``start:stop``, float32."""
        return self.stored.read_columns(start, stop).T.astype(np.float32)


class Packed(Protocol):
    """An affine integer tensor [N, K]: value = (code - zero point) * scale."""

    @property
    def name(self) -> str:
        """The module's weight name, e.g. ``model.layers.0.mlp.up_proj.weight``."""
        ...

    @property
    def path(self) -> Path:
        """The file it is in."""
        ...

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [N, K] of the values."""
        ...

    @property
    def scheme(self) -> str:
        """How the checkpoint keeps it, in words for the ledger."""
        ...

    @property
    def bits(self) -> int:
        """Width of a code: 4 or 8."""
        ...

    @property
    def group_size(self) -> int:
        """Codes along K that share a scale."""
        ...

    @property
    def row_multiple(self) -> int:
        """Blocks of rows start at multiples of it."""
        ...

    def codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Unsigned codes of rows ``start:stop``, uint8 [rows, K]."""
        ...

    def scales(self) -> NDArray[np.float32]:
        """Scales, float32 [N, K / group_size]."""
        ...

    def zero_points(self) -> NDArray[np.uint8] | None:
        """Zero points, uint8 [N, K / group_size]; None when all are 2**(bits-1)."""
        ...


def packed_rows(
    weight: Packed,
    scales: NDArray[np.float32],
    zero_points: NDArray[np.uint8] | None,
    start: int,
    stop: int,
) -> NDArray[np.float32]:
    """Values of rows ``start:stop`` of ``weight``, float32 [rows, K].

    ``scales`` and ``zero_points`` are those of all its rows, which whoever goes through it
    reads once.
    """
    zeros = None if zero_points is None else zero_points[start:stop]
    return dequantise(weight.codes(start, stop), scales[start:stop], zeros, weight.bits)
