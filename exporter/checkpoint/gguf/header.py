"""The header of a GGUF file, versions 2 and 3.

The specification is docs/gguf.md of the ggml project: magic, version, two counts, the
key-value pairs, a record per tensor, then the tensors' bytes, each at a multiple of the
alignment.  Every count and length is held against the file's before memory is taken; the
gguf package's own reader believes them, which a hostile file can use.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from exporter.checkpoint.errors import UnsupportedScheme
from exporter.checkpoint.gguf.errors import UnreadableGguf
from exporter.checkpoint.gguf.metadata import Metadata

_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
#: Gemma 3's vocabulary, the largest there is, takes 6 MiB and 800,000 values.
_MAX_HEADER_BYTES = 64 << 20
_MAX_VALUES = 2 << 20
_MAX_PAIRS = _MAX_TENSORS = 1 << 16
_MAX_NAME = 1 << 16
_MAX_RANK = 4
_MAX_ALIGNMENT = 1 << 20
_DEFAULT_ALIGNMENT = 32

_BOOL, _STRING, _ARRAY = 7, 8, 9
#: Numbers by the specification's ``gguf_metadata_value_type``.
_NUMBERS: MappingProxyType[int, np.dtype[Any]] = MappingProxyType(
    {
        0: np.dtype("u1"),
        1: np.dtype("i1"),
        2: np.dtype("<u2"),
        3: np.dtype("<i2"),
        4: np.dtype("<u4"),
        5: np.dtype("<i4"),
        6: np.dtype("<f4"),
        _BOOL: np.dtype("u1"),
        10: np.dtype("<u8"),
        11: np.dtype("<i8"),
        12: np.dtype("<f8"),
    }
)


@dataclass(frozen=True)
class GgufTensor:
    """A tensor in a GGUF file: what it is and where its bytes lie.

    Attributes:
        shape: rows first, as everywhere else here; the file lists it the other way round.
    """

    path: Path
    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    offset: int

    @property
    def row_bytes(self) -> int:
        """Bytes of one row: of the innermost axis."""
        values, size = GGML_QUANT_SIZES[self.type]
        return self.shape[-1] // values * size

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return prod(self.shape[:-1]) * self.row_bytes

    def read_rows(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Bytes of rows ``start:stop`` of a matrix, uint8 [rows, row_bytes].

        Raises:
            UnreadableGguf: the file is shorter than when it was opened.
        """
        size = (stop - start) * self.row_bytes
        data = np.fromfile(self.path, np.uint8, size, offset=self.offset + start * self.row_bytes)
        if data.size != size:
            raise UnreadableGguf(self.path, f"ends inside tensor {self.name}")
        return data.reshape(stop - start, self.row_bytes)


@dataclass(frozen=True)
class Header:
    """What a file says of itself.  No tensor has been read yet."""

    metadata: Metadata
    tensors: dict[str, GgufTensor]


def read_header(path: Path) -> Header:
    """Read and check the header of ``path``; tensors come in file order.

    Raises:
        UnreadableGguf: it is not one, or contradicts the file's length.
        UnsupportedScheme: a tensor of a type that the gguf package does not know.
    """
    with path.open("rb") as file:
        source = _Source(path, file, path.stat().st_size)
        if source.take(4) != _MAGIC:
            raise UnreadableGguf(path, "is no GGUF file")
        version = source.number("<I")
        if version not in _VERSIONS:
            raise UnreadableGguf(path, f"is GGUF of version {version}; 2 and 3 are read")
        tensors = source.count("tensors", _MAX_TENSORS)
        pairs = source.count("pairs", _MAX_PAIRS)
        values: dict[str, Any] = {}
        for _ in range(pairs):
            key = source.name()
            if key in values:
                raise UnreadableGguf(path, f"key {key} stands twice")
            values[key] = source.value(source.number("<I"))
        metadata = Metadata(path, values)
        alignment = metadata.integer("general.alignment", _DEFAULT_ALIGNMENT)
        if not 0 < alignment <= _MAX_ALIGNMENT or alignment & (alignment - 1):
            raise UnreadableGguf(path, f"an alignment of {alignment} bytes")
        records = [source.record() for _ in range(tensors)]
        body = _aligned(source.at, alignment)
        found = {record.name: replace(record, offset=record.offset + body) for record in records}
    if len(found) != len(records):
        raise UnreadableGguf(path, "a tensor stands twice")
    return Header(metadata, _in_place(path, found, body, alignment, source.size))


def _in_place(
    path: Path, tensors: dict[str, GgufTensor], body: int, alignment: int, size: int
) -> dict[str, GgufTensor]:
    """``tensors`` in file order, if each begins where the one before it ends."""
    ordered = sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.nbytes))
    at = body
    for tensor in ordered:
        if tensor.offset != at:
            raise UnreadableGguf(path, f"tensor {tensor.name} overlaps another or leaves a gap")
        if at + tensor.nbytes > size:
            raise UnreadableGguf(path, f"ends inside tensor {tensor.name}")
        at = _aligned(at + tensor.nbytes, alignment)
    return {tensor.name: tensor for tensor in ordered}


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment


class _Source:
    """A file read from its beginning, never past its end or the header's cap."""

    def __init__(self, path: Path, file: BinaryIO, size: int) -> None:
        self.path, self.size, self.at = path, size, 0
        self._file = file
        self._left = _MAX_VALUES

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes."""
        self.at += length
        if self.at > min(self.size, _MAX_HEADER_BYTES):
            raise UnreadableGguf(self.path, f"its header does not end within {self.size} bytes")
        data = self._file.read(length)
        if len(data) != length:
            raise UnreadableGguf(self.path, "ends inside its header")
        return data

    def number(self, form: str) -> int:
        """One integer."""
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        assert isinstance(value, int)
        return value

    def count(self, what: str, most: int) -> int:
        """How many ``what`` there are."""
        count = self.number("<Q")
        if count > most:
            raise UnreadableGguf(self.path, f"has {count} {what}")
        return count

    def name(self) -> str:
        """A key's or a tensor's name."""
        return self._text(_MAX_NAME)

    def value(self, kind: int) -> Any:
        """A value: a number, a truth value, a text, or a list of one of them."""
        if kind != _ARRAY:
            (value,) = self._values(kind, 1)
            return value
        inner, count = self.number("<I"), self.number("<Q")
        if inner == _ARRAY:
            raise UnreadableGguf(self.path, "holds an array of arrays")
        return self._values(inner, count)

    def record(self) -> GgufTensor:
        """A tensor, its offset counted from where the tensors begin."""
        name = self.name()
        rank = self.number("<I")
        if not 0 < rank <= _MAX_RANK:
            raise UnreadableGguf(self.path, f"tensor {name} has {rank} axes")
        shape = tuple(reversed(struct.unpack(f"<{rank}Q", self.take(8 * rank))))
        kind, offset = self.number("<I"), self.number("<Q")
        if kind not in _TYPES:
            raise UnsupportedScheme(self.path, f"GGML type {kind} (tensor {name})")
        values, _ = GGML_QUANT_SIZES[_TYPES[kind]]
        if 0 in shape or prod(shape) > 1 << 48 or shape[-1] % values or offset > self.size:
            raise UnreadableGguf(self.path, f"tensor {name} has an impossible shape or place")
        return GgufTensor(self.path, name, _TYPES[kind], shape, offset)

    def _values(self, kind: int, count: int) -> list[Any]:
        self._left -= count
        if self._left < 0:
            raise UnreadableGguf(self.path, f"holds more than {_MAX_VALUES} values")
        if kind == _STRING:
            return [self._text(_MAX_HEADER_BYTES) for _ in range(count)]
        if kind not in _NUMBERS:
            raise UnreadableGguf(self.path, f"holds a value of unknown type {kind}")
        numbers = np.frombuffer(self.take(count * _NUMBERS[kind].itemsize), _NUMBERS[kind])
        if kind == _BOOL:
            return [bool(value) for value in numbers]
        return list(numbers.tolist())

    def _text(self, longest: int) -> str:
        length = self.number("<Q")
        if length > longest:
            raise UnreadableGguf(self.path, f"holds a text of {length} bytes")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise UnreadableGguf(self.path, f"holds a text that is not UTF-8: {error}") from None


_TYPES = MappingProxyType({kind.value: kind for kind in GGML_QUANT_SIZES})
