"""A bundle's weights as floats, read by the manifest's definition alone.

This shares no code with the exporter on purpose: the export loss would not see a
layout that writer and reader misunderstood in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.reference.errors import LedgerMismatch
from manifests.bundle import Range, Tensor, WeightSet

Floats = NDArray[np.float32]


def bundle_weights(bundle: Path, weights: WeightSet) -> Iterator[tuple[Tensor, Floats]]:
    """Yield each row of the ledger with its float32 values, one at a time.

    Raises:
        LedgerMismatch: a range lies outside its shard or has another length than
            the row's shape asks for.
    """
    for row in weights.tensors:
        yield row, (_dense(bundle, row) if row.bits is None else _quantised(bundle, row, row.bits))


def _dense(bundle: Path, row: Tensor) -> Floats:
    if row.values is None or row.value_dtype is None:
        raise LedgerMismatch(bundle, row.name, "neither codes nor values")
    count = int(np.prod(row.shape, dtype=np.int64))
    values = _read(bundle, row, row.values, np.dtype(row.value_dtype), count)
    return values.astype(np.float32).reshape(row.shape)


def _quantised(bundle: Path, row: Tensor, bits: int) -> Floats:
    if bits not in (4, 8) or row.codes is None or row.scales is None or row.scale_dtype is None:
        raise LedgerMismatch(bundle, row.name, "codes need 4 or 8 bits, a range and scales")
    if len(row.shape) != 2 or not row.block_size or row.shape[1] % row.block_size:
        raise LedgerMismatch(bundle, row.name, f"blocks of {row.block_size} in {row.shape}")
    n, k = row.shape
    blocks = k // row.block_size
    codes = _unpack(_bytes(bundle, row, row.codes, n * (k * bits // 8)).reshape(n, -1), bits, k)
    scales = _read(bundle, row, row.scales, np.dtype(row.scale_dtype), n * blocks)
    if row.zero_points is None:
        zero_points = np.full((n, blocks), 1 << (bits - 1), dtype=np.uint8)
    else:
        row_bytes = -(-blocks * bits // 8)
        packed = _bytes(bundle, row, row.zero_points, n * row_bytes).reshape(n, row_bytes)
        zero_points = _unpack(packed, bits, blocks)
    centred = codes.reshape(n, blocks, -1).astype(np.float32)
    centred -= zero_points[..., None]
    centred *= scales.reshape(n, blocks, 1).astype(np.float32)
    values = centred.reshape(n, k)
    return values if row.permutation is None else _put_back(bundle, row, row.permutation, values)


def _put_back(bundle: Path, row: Tensor, where: Range, stored: Floats) -> Floats:
    """Undo a permutation: column j of ``stored`` is column permutation[j] of the tensor."""
    columns = _read(bundle, row, where, np.dtype(np.int32), stored.shape[1])
    places = np.full(len(columns), -1, dtype=np.int64)
    for stored_at, column in enumerate(columns.tolist()):
        if not 0 <= column < len(places) or places[column] != -1:
            raise LedgerMismatch(bundle, row.name, f"column {column} in no permutation")
        places[column] = stored_at
    return stored[:, places]


def _unpack(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Codes uint8 [N, count] of rows of bytes; of two in a byte, the low bits come first."""
    if bits == 8:
        return packed
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(len(packed), -1)[:, :count]


def _bytes(bundle: Path, row: Tensor, where: Range, count: int) -> NDArray[np.uint8]:
    return _read(bundle, row, where, np.dtype(np.uint8), count)


def _read(
    bundle: Path, row: Tensor, where: Range, dtype: np.dtype[Any], count: int
) -> NDArray[Any]:
    if where.length != count * dtype.itemsize:
        reason = f"{where.length} bytes where {count} values of {dtype} belong"
        raise LedgerMismatch(bundle, row.name, reason)
    try:
        values = np.fromfile(
            bundle / where.file, dtype.newbyteorder("<"), count, offset=where.offset
        )
    except OSError as error:
        raise LedgerMismatch(bundle, row.name, str(error)) from None
    if len(values) != count:
        raise LedgerMismatch(bundle, row.name, f"{where.file} ends before its bytes do")
    return values
