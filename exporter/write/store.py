"""From a checkpoint's weight to bytes in a shard.

Codes that fit the target's width are carried unchanged (a narrower code is shifted to
the middle of a wider one); everything else is quantised here, and the ledger tells its
error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.errors import NotFinite, OutOfRange, UnsupportedScheme, WrongShape
from exporter.checkpoint.reordered import Reordered
from exporter.checkpoint.weights import Dense, Packed, Transposed, packed_rows, row_blocks
from exporter.quant.ahead import made_ahead
from exporter.quant.blocks import LARGEST, dequantise, quantise
from exporter.quant.census import CensusBuilder, zeros_of_codes
from exporter.quant.layout import BLOCK_SIZES, block_size_for, pack, widen
from exporter.quant.rounding import RoundingBuilder
from exporter.write.shards import ShardWriter
from manifests.bundle import Range, Rounding, Tensor, Zeros
from targets.catalog import RoundingMethod

FloatDtype = Literal["float16", "float32"]
MatrixRole = Literal["linear", "embedding", "head", "tied"]
#: Roles whose rows are gathered by token id.
GATHERED = frozenset({"embedding", "tied"})


@dataclass(frozen=True)
class Vector:
    """A norm or a bias in a shard, as floats."""

    name: str
    shape: tuple[int, ...]
    source: str
    values: Range

    dtype: FloatDtype = "float32"

    def row(self) -> Tensor:
        """Its row of the ledger."""
        return Tensor(
            name=self.name,
            role="float",
            shape=self.shape,
            source=self.source,
            outcome="exact",
            values=self.values,
            value_dtype=self.dtype,
        )


@dataclass(frozen=True)
class Matrix:
    """A matrix [N, K] in a shard, as codes; ``rounding`` is None when they are exact."""

    name: str
    role: MatrixRole
    shape: tuple[int, int]
    source: str
    bits: int
    block_size: int
    codes: Range
    scales: Range
    scale_dtype: FloatDtype
    zero_points: Range | None
    permutation: Range | None
    rounding: Rounding | None
    zeros: Zeros
    transposed: bool

    @property
    def blocks(self) -> int:
        """Scales per row."""
        return self.shape[1] // self.block_size

    def row(self) -> Tensor:
        """Its row of the ledger."""
        return Tensor(
            name=self.name,
            role=self.role,
            shape=self.shape,
            source=self.source,
            outcome="requantised" if self.rounding else "exact",
            transposed=self.transposed or None,
            rounding=self.rounding,
            zeros=self.zeros,
            bits=self.bits,
            block_size=self.block_size,
            codes=self.codes,
            scales=self.scales,
            scale_dtype=self.scale_dtype,
            zero_points=self.zero_points,
            permutation=self.permutation,
        )


@dataclass(frozen=True)
class StoredWeights:
    """A weight set as graphs need it: what is stored, and default zero points by width."""

    vectors: tuple[Vector, ...]
    matrices: tuple[Matrix, ...]
    default_zero_points: dict[int, Range]

    @cached_property
    def rows(self) -> tuple[Tensor, ...]:
        """The ledger of all of it."""
        return (*(part.row() for part in self.vectors), *(part.row() for part in self.matrices))


@dataclass(frozen=True)
class _Codes:
    """Rows of a matrix, block by block, and what belongs to all of them.

    ``blocks`` yields uint8 [rows, K].  ``census`` fills up as it goes, and so do
    ``scales`` and ``rounding`` when the matrix is quantised here: they are read after it
    is exhausted.
    """

    block_size: int
    blocks: Iterator[NDArray[np.uint8]]
    scales: NDArray[np.float32]
    zero_points: NDArray[np.uint8] | None
    rounding: RoundingBuilder
    census: CensusBuilder


def store_vector(weight: Dense, writer: ShardWriter) -> Vector:
    """Store as float32, which holds bf16, fp16 and fp32 exactly."""
    values = _finite(weight, weight.values())
    place = writer.begin(weight.name, values.nbytes)
    writer.write(values)
    return Vector(weight.name, weight.shape, weight.scheme, place)


def store_matrix(
    weight: Dense | Packed,
    role: MatrixRole,
    bits: int,
    block_size: int,
    method: RoundingMethod,
    writer: ShardWriter,
) -> Matrix:
    """Store as codes of ``bits``.

    ``block_size`` and ``method`` are used where we quantise; packed weights keep their
    own groups and scales.

    Raises:
        NotFinite: a value or a scale is NaN or infinite.
        OutOfRange: a value is too large to be quantised here.
        WrongShape: K has no block size that the runtime can read.
        UnsupportedScheme: an embedding with zero points, which no gather kernel reads.
    """
    rows, columns = weight.shape
    order = _order(weight, role, bits)
    codes = _codes(weight if order is None else order.packed, bits, block_size, method)
    if codes.zero_points is not None and role in GATHERED:
        raise UnsupportedScheme(weight.path, f"of an asymmetric embedding ({weight.name})")
    place = writer.begin(weight.name, rows * columns * bits // 8)
    for block in codes.blocks:
        writer.write(pack(block, bits))
    scales, scale_dtype = _shortest(codes.scales)
    scales_place = writer.begin(weight.name, scales.nbytes)
    writer.write(scales)
    zero_points_place: Range | None = None
    if codes.zero_points is not None:
        packed = pack(codes.zero_points, bits)
        zero_points_place = writer.begin(weight.name, packed.nbytes)
        writer.write(packed)
    permutation = None if order is None else writer.share(weight.name, order.order)
    return Matrix(
        name=weight.name,
        role=role,
        shape=(rows, columns),
        source=weight.scheme,
        bits=bits,
        block_size=codes.block_size,
        codes=place,
        scales=scales_place,
        scale_dtype=scale_dtype,
        zero_points=zero_points_place,
        permutation=permutation,
        rounding=None if codes.rounding.exact else codes.rounding.build(),
        zeros=codes.census.build(),
        transposed=isinstance(weight, Transposed),
    )


def _order(weight: Dense | Packed, role: MatrixRole, bits: int) -> Reordered | None:
    """``weight`` where its codes can be carried in an order of their own, else None.

    A gather puts out rows as they are stored, so only products take an order.
    """
    if isinstance(weight, Reordered) and weight.packed.bits <= bits and role not in GATHERED:
        return weight
    return None


def _codes(weight: Dense | Packed, bits: int, block_size: int, method: RoundingMethod) -> _Codes:
    if not isinstance(weight, Dense) and weight.bits <= bits:
        return _carry(weight, bits)
    rows, columns = weight.shape
    block = block_size if columns % block_size == 0 else block_size_for(columns)
    if block is None:
        raise _unblockable(weight)
    scales = np.empty((rows, columns // block), np.float32)
    rounding, census = RoundingBuilder(), CensusBuilder()
    blocks = _round(weight, bits, block, method, scales, rounding, census)
    return _Codes(block, blocks, scales, None, rounding, census)


def _carry(weight: Packed, bits: int) -> _Codes:
    """The checkpoint's own codes, shifted when the target's are wider."""
    zero_points = weight.zero_points()
    block = block_size_for(weight.group_size)
    if block is not None and zero_points is not None and weight.shape[1] // block % 2:
        # MatMulNBits pads a row of 4-bit zero points to whole bytes, ONNX's UINT4 does
        # not; with an even number of blocks a row they are the same bytes.
        block = block // 2 if block > min(BLOCK_SIZES) else None
    if block is None:
        raise _unblockable(weight)
    repeat = weight.group_size // block
    scales = np.repeat(_finite(weight, weight.scales()), repeat, axis=1)
    if zero_points is not None:
        zero_points = np.repeat(zero_points, repeat, axis=1)
    shift = zero_points is None and weight.bits != bits
    census = CensusBuilder()

    def blocks() -> Iterator[NDArray[np.uint8]]:
        for start, stop in row_blocks(*weight.shape, multiple=weight.row_multiple):
            codes = weight.codes(start, stop)
            middles = None if zero_points is None else zero_points[start:stop]
            zeros = zeros_of_codes(codes, scales[start:stop], middles, weight.bits)
            census.add(zeros, zeros)
            yield widen(codes, weight.bits, bits) if shift else codes

    return _Codes(block, blocks(), scales, zero_points, RoundingBuilder(), census)


def _round(
    weight: Dense | Packed,
    bits: int,
    block: int,
    method: RoundingMethod,
    scales: NDArray[np.float32],
    rounding: RoundingBuilder,
    census: CensusBuilder,
) -> Iterator[NDArray[np.uint8]]:
    """Quantise block by block, filling ``scales``, ``rounding`` and ``census`` on the way."""

    def rounded(
        part: tuple[int, int, NDArray[np.float32]],
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
        start, stop, values = part
        _finite(weight, values)
        if np.abs(values).max(initial=0) > LARGEST[bits]:
            raise OutOfRange(weight.path, weight.name, LARGEST[bits])
        codes, scales[start:stop] = quantise(values, bits, block, method)
        return values, codes, dequantise(codes, scales[start:stop], None, bits)

    for values, codes, stored in made_ahead(rounded, _values(weight)):
        rounding.add(values, stored)
        census.add(values == 0, stored == 0)
        yield codes


def _values(weight: Dense | Packed) -> Iterator[tuple[int, int, NDArray[np.float32]]]:
    rows, columns = weight.shape
    if isinstance(weight, Dense):
        for start, stop in row_blocks(rows, columns):
            yield start, stop, weight.rows(start, stop)
        return
    scales, zero_points = _finite(weight, weight.scales()), weight.zero_points()
    for start, stop in row_blocks(rows, columns, weight.row_multiple):
        yield start, stop, packed_rows(weight, scales, zero_points, start, stop)


def _finite(weight: Dense | Packed, values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give ``values`` back, or refuse them: a comparison with NaN would call them exact."""
    if not np.isfinite(values).all():
        raise NotFinite(weight.path, weight.name)
    return values


def _shortest(
    scales: NDArray[np.float32],
) -> tuple[NDArray[np.float16] | NDArray[np.float32], FloatDtype]:
    """Scales as float16 where that is exact, which halves them on the wire."""
    with np.errstate(over="ignore"):
        half = scales.astype(np.float16)
    if np.array_equal(half.astype(np.float32), scales):
        return half, "float16"
    return scales, "float32"


def _unblockable(weight: Dense | Packed) -> WrongShape:
    reason = f"shape {list(weight.shape)} cannot be cut into blocks of 16 or more along its rows"
    return WrongShape(weight.path, weight.name, reason)
