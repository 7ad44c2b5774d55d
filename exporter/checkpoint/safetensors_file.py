"""A safetensors file, read a slice at a time.

The format (https://huggingface.co/docs/safetensors): an unsigned 64-bit little-endian
header length, that many bytes of JSON, then the tensors' bytes.  Everything the header
says is checked against the file's length before any of it is believed.  Reading goes
through ``pread``, not a memory map, so that resident memory stays that of one slice.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint import strict_json
from exporter.checkpoint.errors import PickleRefused, ShardCorrupt, WrongShape

_MAX_RANK = 8
_PICKLE_STARTS = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK\x03\x04")

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
_FLOATS = frozenset({DTYPES["BF16"], DTYPES["F16"], DTYPES["F32"]})


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a safetensors file: what it is and where its bytes lie."""

    path: Path
    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    @property
    def is_float(self) -> bool:
        """Whether float32 holds its values exactly: those of bf16, fp16 and fp32."""
        return self.dtype in _FLOATS

    def read(self) -> NDArray[Any]:
        """Read the whole tensor, in its own dtype and shape."""
        return self._read(0, self.nbytes).reshape(self.shape)

    def read_rows(self, start: int, stop: int) -> NDArray[Any]:
        """Read rows ``start:stop`` along the first axis.

        Raises:
            ShardCorrupt: the file is shorter than when it was opened.
        """
        row = prod(self.shape[1:]) * self.dtype.itemsize
        return self._read(start * row, (stop - start) * row).reshape(-1, *self.shape[1:])

    def read_columns(self, start: int, stop: int) -> NDArray[Any]:
        """Read columns ``start:stop`` of a matrix; memory stays that of the result.

        Raises:
            ShardCorrupt: the file is shorter than when it was opened.
        """
        rows, columns = self.shape
        size = self.dtype.itemsize
        step = (stop - start) * size
        buffer = bytearray(rows * step)
        view = memoryview(buffer)
        with self.path.open("rb", buffering=0) as file:
            for row in range(rows):
                at = self.offset + (row * columns + start) * size
                self._fill(file.fileno(), view[row * step : (row + 1) * step], at)
        return np.frombuffer(buffer, dtype=self.dtype).reshape(rows, stop - start)

    def expect(self, shape: tuple[int, ...]) -> StoredTensor:
        """Return self, or raise :class:`WrongShape` when the shape is another."""
        if self.shape != shape:
            raise WrongShape(
                self.path, self.name, f"shape {list(self.shape)}, expected {list(shape)}"
            )
        return self

    def _read(self, start: int, length: int) -> NDArray[Any]:
        buffer = bytearray(length)
        with self.path.open("rb", buffering=0) as file:
            self._fill(file.fileno(), memoryview(buffer), self.offset + start)
        return np.frombuffer(buffer, dtype=self.dtype)

    def _fill(self, file: int, view: memoryview, at: int) -> None:
        while view:
            count = os.preadv(file, [view], at)
            if count == 0:
                raise ShardCorrupt(self.path, f"ends inside tensor {self.name}")
            view, at = view[count:], at + count


def open_safetensors(path: Path) -> dict[str, StoredTensor]:
    """Read and check the header of ``path``; tensors come in file order.

    Raises:
        PickleRefused: the file is a pickle or a zip of one, whatever its name.
        ShardCorrupt: the header is not one, or contradicts the file's length.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        # A header of 1152 bytes begins like a pickle too, but its JSON begins with a brace.
        if start.startswith(_PICKLE_STARTS) and file.read(1) != b"{":
            raise PickleRefused(path)
        file.seek(8)
        if len(start) < 8:
            raise ShardCorrupt(path, f"{size} bytes are too few for a safetensors file")
        (length,) = struct.unpack("<Q", start)
        if length > min(strict_json.MAX_BYTES, size - 8):
            raise ShardCorrupt(path, f"header of {length} bytes in a file of {size}")
        text = file.read(length)
    try:
        header = strict_json.parse(text)
    except ValueError as error:
        raise ShardCorrupt(path, f"header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ShardCorrupt(path, "header is not a JSON object")
    header.pop("__metadata__", None)
    body = 8 + length
    tensors = [_entry(path, name, fields, body) for name, fields in header.items()]
    tensors.sort(key=lambda tensor: (tensor.offset, tensor.nbytes))
    at = body
    for tensor in tensors:
        if tensor.offset != at:
            raise ShardCorrupt(path, f"tensor {tensor.name} overlaps another or leaves a gap")
        at += tensor.nbytes
    if at != size:
        raise ShardCorrupt(path, f"is {size} bytes long, its header says {at}")
    return {tensor.name: tensor for tensor in tensors}


def _entry(path: Path, name: str, fields: object, body: int) -> StoredTensor:
    match fields:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, end]} if (
            type(begin) is type(end) is int
        ):
            pass
        case _:
            raise ShardCorrupt(path, f"tensor {name} lacks dtype, shape or data_offsets")
    if dtype not in DTYPES:
        raise ShardCorrupt(path, f"tensor {name} has unknown dtype {dtype!r}")
    if len(shape) > _MAX_RANK or not all(type(n) is int and 0 <= n < 1 << 48 for n in shape):
        raise ShardCorrupt(path, f"tensor {name} has an impossible shape")
    tensor = StoredTensor(path, name, DTYPES[dtype], tuple(shape), body + begin)
    if begin < 0 or end - begin != tensor.nbytes:
        raise ShardCorrupt(path, f"tensor {name} has {end - begin} bytes, needs {tensor.nbytes}")
    return tensor
