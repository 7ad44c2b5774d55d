"""A GGUF file's tensors as the exporter's weights.

Types whose blocks are a scale and signed steps are codes; everything else is floats,
dequantised by the gguf package a block of rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from gguf.constants import GGMLQuantizationType
from gguf.quants import dequantize
from numpy.typing import NDArray

from exporter.checkpoint.gguf.header import GgufTensor
from exporter.checkpoint.weights import Dense, Packed, row_blocks

_Type = GGMLQuantizationType
_FLOATS = MappingProxyType({_Type.F32: "float32", _Type.F16: "float16", _Type.BF16: "bfloat16"})
_GROUP = 32
_SCALE_BYTES = 2


@dataclass(frozen=True)
class Place:
    """Where a weight comes from.

    Attributes:
        name: the module's weight name.
        head_rows: rows of an attention head whose two rotary halves llama.cpp wants
            interleaved, row i of the first beside row i of the second; None for no such.
        offset: what GGUF adds to every value, as to Gemma's norms.
    """

    tensor: GgufTensor
    name: str
    head_rows: int | None = None
    offset: float = 0.0

    def order(self, start: int, stop: int) -> NDArray[np.int64]:
        """The file's row for each of rows ``start:stop``."""
        rows = np.arange(start, stop)
        if self.head_rows is None:
            return rows
        half, at = self.head_rows // 2, rows % self.head_rows
        return rows - at + 2 * (at % half) + at // half

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes of rows ``start:stop`` in the model's order, uint8 [rows, row_bytes]."""
        order = self.order(start, stop)
        first = int(order.min(initial=self.tensor.shape[0]))
        return self.tensor.read_rows(first, int(order.max(initial=first - 1)) + 1)[order - first]


@dataclass(frozen=True)
class GgufFloats(Dense):
    """A tensor whose values are floats, or are made floats."""

    place: Place

    @property
    def name(self) -> str:
        """The module's weight name."""
        return self.place.name

    @property
    def path(self) -> Path:
        """The file it is in."""
        return self.place.tensor.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values."""
        return self.place.tensor.shape

    @property
    def scheme(self) -> str:
        """How the file keeps it, in words for the ledger."""
        kind = self.place.tensor.type
        return _FLOATS.get(kind, f"gguf {kind.name.lower()}")

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Values of rows ``start:stop``, float32."""
        kind = self.place.tensor.type
        # A damaged scale may be anything; who stores the values refuses what is not finite.
        with np.errstate(all="ignore"):
            if len(self.shape) == 1:
                whole = dequantize(self.place.tensor.read_rows(0, 1), kind)[0]
                values = whole[self.place.order(start, stop)]
            else:
                values = dequantize(self.place.read(start, stop), kind)
            result: NDArray[np.float32] = values - np.float32(self.place.offset)
        return result


@dataclass(frozen=True)
class GgufCodes:
    """Blocks of 32 steps and a float16 scale; see :class:`exporter.checkpoint.weights.Packed`."""

    place: Place

    @property
    def name(self) -> str:
        """The module's weight name."""
        return self.place.name

    @property
    def path(self) -> Path:
        """The file it is in."""
        return self.place.tensor.path

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [N, K]."""
        rows, columns = self.place.tensor.shape
        return rows, columns

    @property
    def bits(self) -> int:
        """Width of a code."""
        return _CODES[self.place.tensor.type].bits

    @property
    def group_size(self) -> int:
        """Codes along K that share a scale."""
        return _GROUP

    @property
    def row_multiple(self) -> int:
        """Rows come in any number."""
        return 1

    @property
    def scheme(self) -> str:
        """How the file keeps it, in words for the ledger."""
        return f"gguf {self.place.tensor.type.name.lower()} g{_GROUP}"

    def codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Unsigned codes of rows ``start:stop``, uint8 [rows, K]."""
        steps = _CODES[self.place.tensor.type].unpack(self._blocks(start, stop)[..., _SCALE_BYTES:])
        return steps.reshape(stop - start, -1)

    def scales(self) -> NDArray[np.float32]:
        """Scales, float32 [N, K / 32]; they may be negative."""
        rows, columns = self.shape
        scales = np.empty((rows, columns // _GROUP), np.float32)
        for start, stop in row_blocks(rows, columns):
            part = self._blocks(start, stop)[..., :_SCALE_BYTES]
            scales[start:stop] = np.ascontiguousarray(part).view("<f2")[..., 0]
        return scales

    def zero_points(self) -> None:
        """None: all are 2**(bits-1)."""

    def _blocks(self, start: int, stop: int) -> NDArray[np.uint8]:
        return self.place.read(start, stop).reshape(stop - start, self.shape[1] // _GROUP, -1)


def weight_of(place: Place) -> Dense | Packed:
    """The weight at ``place``.

    Raises:
        NotImplementedError: the gguf package cannot dequantise its type.
    """
    tensor = place.tensor
    if tensor.type in _CODES and len(tensor.shape) == 2 and not place.offset:
        return GgufCodes(place)
    if tensor.type not in _FLOATS:
        # Asked for now, so that a type which nothing reads is refused before any work.
        dequantize(np.zeros((1, tensor.row_bytes), np.uint8), tensor.type)
    return GgufFloats(place)


def _nibbles(octets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A block's low halves are its first 16 values, the high halves the others."""
    return np.concatenate((octets & 15, octets >> 4), axis=-1)


def _signed(octets: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """int8 plus 128: in two's complement, flip the highest bit."""
    return octets ^ np.uint8(128)


@dataclass(frozen=True)
class _Layout:
    """What follows a block's scale: ``unpack`` gives codes with zero point 2**(bits-1)."""

    bits: int
    unpack: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]


_CODES = MappingProxyType({_Type.Q4_0: _Layout(4, _nibbles), _Type.Q8_0: _Layout(8, _signed)})
