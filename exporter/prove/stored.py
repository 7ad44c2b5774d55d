"""The bundle's side: a row of the ledger, read by what :class:`Tensor` promises."""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.prove.errors import LedgerUntrue
from exporter.prove.values import Codes, Matrix
from manifests.bundle import Range, Tensor


class Row:
    """A row's bytes; every range is mapped, none is read before it is asked for."""

    def __init__(self, bundle: Path, row: Tensor) -> None:
        self._bundle, self._row = bundle, row

    def matrix(self) -> Matrix:
        """The stored tensor, columns of codes in the order that they are stored in.

        Raises:
            LedgerUntrue: the row contradicts itself.
        """
        row = self._row
        if row.bits is None:
            values = self._map(row.values, row.value_dtype or "float32", prod(row.shape))
            shaped = values.reshape(row.shape)
            return Matrix(row.shape, lambda start, stop: shaped[start:stop].astype(np.float32))
        if row.bits not in (4, 8) or len(row.shape) != 2 or not row.block_size:
            raise self._untrue("codes need 4 or 8 bits, two axes and a block size")
        rows, columns = row.shape
        if columns % row.block_size or columns * row.bits % 8:
            raise self._untrue(f"blocks of {row.block_size} do not fill rows of {columns}")
        return self._codes(rows, columns, columns // row.block_size, row.bits)

    def order(self) -> NDArray[np.int32] | None:
        """Which column of the tensor each stored column is; None when they are in order.

        Raises:
            LedgerUntrue: it is no permutation.
        """
        row = self._row
        if row.permutation is None:
            return None
        order: NDArray[np.int32] = self._map(row.permutation, "int32", row.shape[1])
        if not np.array_equal(np.sort(order), np.arange(row.shape[1])):
            raise self._untrue("its permutation leaves columns out")
        return order

    def _codes(self, rows: int, columns: int, blocks: int, bits: int) -> Matrix:
        row = self._row
        width = columns * bits // 8
        packed = self._map(row.codes, "uint8", rows * width).reshape(rows, width)
        scales = self._map(row.scales, row.scale_dtype or "float32", rows * blocks)
        scales = scales.reshape(rows, blocks)
        zeros: NDArray[np.uint8] | None = None
        if row.zero_points is not None:
            # A row of zero points is filled up to whole bytes.
            zero_width = -(-blocks * bits // 8)
            zeros = self._map(row.zero_points, "uint8", rows * zero_width)
            zeros = zeros.reshape(rows, zero_width)

        def read(start: int, stop: int) -> Codes:
            codes = _nibbles(packed[start:stop], bits)
            middle: NDArray[np.int32] | int = 1 << (bits - 1)
            if zeros is not None:
                points = _nibbles(zeros[start:stop], bits)[:, :blocks]
                middle = np.repeat(points, columns // blocks, axis=1)
            spread = np.repeat(scales[start:stop].astype(np.float32), columns // blocks, axis=1)
            return Codes(codes - middle, spread)

        return Matrix((rows, columns), read)

    def _map(self, place: Range | None, dtype: str, count: int) -> NDArray[Any]:
        if place is None:
            raise self._untrue("a range is missing")
        kind = np.dtype(dtype).newbyteorder("<")
        if place.length != count * kind.itemsize:
            raise self._untrue(f"{place.length} bytes where {count} values of {dtype} belong")
        path = self._bundle / place.file
        if place.offset + place.length > path.stat().st_size:
            raise self._untrue(f"{place.file} ends before its bytes do")
        if not count:
            return np.empty(0, kind)
        return np.memmap(path, kind, "r", place.offset, (count,))

    def _untrue(self, reason: str) -> LedgerUntrue:
        return LedgerUntrue(self._bundle, self._row.name, reason)


def _nibbles(octets: NDArray[np.uint8], bits: int) -> NDArray[np.int32]:
    """Codes of bytes, the lower half of a byte first: int32 [rows, bytes * 8 / bits]."""
    if bits == 8:
        return octets.astype(np.int32)
    shifts = np.array([0, 4], np.uint8)
    return ((octets[:, :, None] >> shifts) & 15).reshape(len(octets), -1).astype(np.int32)
