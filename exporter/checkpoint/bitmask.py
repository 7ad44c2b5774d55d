"""Sparse weights of compressed-tensors: the values that are set, and a bit for every place.

A weight [N, K] or [K] is kept as ``shape`` int64 [rank] or [rank, 1]; ``bitmask`` uint8
[N, ceil(K / 8)], the first column in the lowest bit; and ``compressed``, the values whose bit
is set, row after row.  ``sparse-bitmask`` has them flat, with ``row_offsets`` int64 [N]
that tell where each row begins; ``sparse-24-bitmask`` has half of every row, [N, K / 2].
Every value that has no bit is exactly zero.  Read from
https://github.com/vllm-project/compressed-tensors, whose versions after 0.12 no longer do.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.errors import WrongShape
from exporter.checkpoint.packing import take
from exporter.checkpoint.safetensors_file import StoredTensor

_BITMASK = ".bitmask"
_INT64 = np.dtype("<i8")
FORMATS = frozenset({"sparse-bitmask", "sparse-24-bitmask"})


@dataclass(frozen=True)
class Bitmasked(StoredTensor):
    """A tensor that reads as if it were stored dense.

    Attributes:
        offset: where its values begin.
        row_offsets: None where every row has half of its values.
    """

    bitmask: StoredTensor
    values: StoredTensor
    row_offsets: StoredTensor | None

    @property
    def form(self) -> str:
        """The format's name."""
        return "sparse-24-bitmask" if self.row_offsets is None else "sparse-bitmask"

    def read(self) -> NDArray[Any]:
        """Read the whole tensor, zeros put in.

        Raises:
            WrongShape: bits and values do not match.
        """
        return self._dense(0, self._rows).reshape(self.shape)

    def read_rows(self, start: int, stop: int) -> NDArray[Any]:
        """Read rows ``start:stop``, zeros put in.

        Raises:
            WrongShape: bits and values do not match.
        """
        return self.read()[start:stop] if len(self.shape) == 1 else self._dense(start, stop)

    def read_columns(self, start: int, stop: int) -> NDArray[Any]:
        """Read columns ``start:stop``; rows are read whole.

        Raises:
            WrongShape: bits and values do not match.
        """
        return self.read()[:, start:stop]

    @property
    def _rows(self) -> int:
        return self.shape[0] if len(self.shape) == 2 else 1

    def _dense(self, start: int, stop: int) -> NDArray[Any]:
        is_vector = len(self.shape) == 1
        packed = self.bitmask.read()[None] if is_vector else self.bitmask.read_rows(start, stop)
        bits = np.unpackbits(packed, axis=1, count=self.shape[-1], bitorder="little").view(np.bool_)
        dense = np.zeros(bits.shape, self.dtype)
        dense[bits] = self._values_of(start, stop, np.count_nonzero(bits, axis=1))
        return dense

    def _values_of(self, start: int, stop: int, counts: NDArray[np.intp]) -> NDArray[Any]:
        """The values of rows ``start:stop``, flat, which have ``counts`` bits each."""
        if self.row_offsets is None:
            if (counts != self.shape[1] // 2).any():
                raise WrongShape(self.path, self.bitmask.name, "does not set half of every row")
            return self.values.read_rows(start, stop).reshape(-1)
        begins = self.row_offsets.read().reshape(-1)
        ends = np.append(begins[1:], self.values.shape[0])
        grows = begins[0] == 0 and (begins <= ends).all()
        if not grows or (ends[start:stop] - begins[start:stop] != counts).any():
            raise WrongShape(self.path, self.row_offsets.name, "does not count the bits of rows")
        return self.values.read_rows(int(begins[start]), int(ends[stop - 1]))


def restore(tensors: dict[str, StoredTensor]) -> Iterator[Bitmasked]:
    """Take the parts of sparse weights out of ``tensors``; yield them as ``<module>.weight``.

    Raises:
        TensorMissing: a weight without one of its parts.
        WrongShape: parts of one weight that contradict each other.
    """
    for key in [name for name in tensors if name.endswith(_BITMASK)]:
        module = key.removesuffix(_BITMASK)
        bitmask = tensors.pop(key)
        values = take(tensors, bitmask.path, f"{module}.compressed")
        shape = _shape(take(tensors, bitmask.path, f"{module}.shape"))
        row_offsets = tensors.pop(f"{module}.row_offsets", None)
        rows, width = shape[:-1], -(-shape[-1] // 8)
        if bitmask.expect((*rows, width)).dtype != np.uint8:
            raise WrongShape(bitmask.path, bitmask.name, f"is {bitmask.dtype}, expected uint8")
        if row_offsets is None:
            if len(shape) != 2 or shape[1] % 2:
                raise WrongShape(bitmask.path, key, f"half of {list(shape)} is no matrix")
            values.expect((shape[0], shape[1] // 2))
        elif row_offsets.expect(rows).dtype != _INT64 or len(values.shape) != 1:
            raise WrongShape(bitmask.path, row_offsets.name, "is no list of places in a flat one")
        yield Bitmasked(
            path=values.path,
            name=f"{module}.weight",
            dtype=values.dtype,
            shape=shape,
            offset=values.offset,
            bitmask=bitmask,
            values=values,
            row_offsets=row_offsets,
        )


def _shape(stored: StoredTensor) -> tuple[int, ...]:
    """One or two counts, each of at least 1."""
    if stored.dtype != _INT64 or stored.shape not in {(1,), (2,), (1, 1), (2, 1)}:
        raise WrongShape(stored.path, stored.name, f"{stored.dtype} {list(stored.shape)}")
    shape = tuple(int(n) for n in stored.read().reshape(-1))
    if min(shape) <= 0:
        raise WrongShape(stored.path, stored.name, f"says {list(shape)}")
    return shape
