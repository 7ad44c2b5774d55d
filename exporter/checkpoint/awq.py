"""AWQ's format ``gemm``, as AutoAWQ writes it.

A linear [N, K] is kept transposed: ``qweight`` int32 [K, N / 8] and ``qzeros`` int32
[G, N / 8], both packed along N; ``scales`` [G, N].  The eight codes of a word are
interleaved for the GPU's sake: see :data:`_ORDER`.
(https://github.com/casper-hansen/AutoAWQ, ``WQLinear_GEMM``.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.config import Part, read_part
from exporter.checkpoint.errors import UnsupportedScheme, WrongShape
from exporter.checkpoint.packing import describe, take_scales, take_words, unpack
from exporter.checkpoint.safetensors_file import StoredTensor

_SUFFIX = ".qweight"
_BITS = 4
_PER_WORD = 8
#: The output, among a word's eight, of each code from the lowest bits up.
_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
_PLACE = np.argsort(_ORDER)


@dataclass(frozen=True)
class AwqLinear:
    """One linear; see :class:`exporter.checkpoint.weights.Packed`."""

    name: str
    shape: tuple[int, int]
    group_size: int
    qweight: StoredTensor
    stored_scales: StoredTensor
    qzeros: StoredTensor

    @property
    def path(self) -> Path:
        """The file its codes are in."""
        return self.qweight.path

    @property
    def bits(self) -> int:
        """Width of a code."""
        return _BITS

    @property
    def row_multiple(self) -> int:
        """A word holds the codes of eight rows."""
        return _PER_WORD

    @property
    def scheme(self) -> str:
        """How the checkpoint keeps it, in words for the ledger."""
        symmetric = self.zero_points() is None
        return describe("awq", _BITS, self.group_size, self.shape[1], symmetric=symmetric)

    def codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Unsigned codes, uint8 [rows, K]: those that the file holds, unchanged."""
        words = self.qweight.read_columns(start // _PER_WORD, stop // _PER_WORD)
        return np.ascontiguousarray(_deinterleave(words).T)

    def scales(self) -> NDArray[np.float32]:
        """Scales, float32 [N, K / group_size]."""
        return np.ascontiguousarray(self.stored_scales.read().T.astype(np.float32))

    def zero_points(self) -> NDArray[np.uint8] | None:
        """Zero points, uint8 [N, K / group_size]; None when all are 8."""
        points = _deinterleave(self.qzeros.read())
        if (points == 1 << (_BITS - 1)).all():
            return None
        return np.ascontiguousarray(points.T)


def _deinterleave(words: NDArray[Any]) -> NDArray[np.uint8]:
    """Codes of words [R, W] in the order of the outputs, uint8 [R, W * 8]."""
    codes = unpack(words, _BITS).reshape(len(words), -1, _PER_WORD)
    return np.take(codes, _PLACE, axis=-1).reshape(len(words), -1)


class _Config(Part):
    bits: int
    version: str = "gemm"


class Awq:
    """The format, as :class:`exporter.checkpoint.formats.Reader` asks.

    Groups and symmetry of each linear are read off its own tensors.

    Raises:
        UnsupportedScheme: another width, or another version than ``gemm``.
    """

    name = "awq"
    remarks: tuple[str, ...] = ()

    def __init__(self, config: object, path: Path) -> None:
        read = read_part(_Config, config, path, "quantization_config")
        if read.version.lower() != "gemm":
            raise UnsupportedScheme(path, f"awq in the version {read.version}")
        if read.bits != _BITS:
            raise UnsupportedScheme(path, f"awq of {read.bits} bits")

    def read(self, tensors: dict[str, StoredTensor]) -> Iterator[AwqLinear]:
        """Take every quantised linear out of ``tensors``.

        Raises:
            TensorMissing, WrongShape: as any reader.
        """
        for key in [name for name in tensors if name.endswith(_SUFFIX)]:
            yield _linear(tensors, key.removesuffix(_SUFFIX))


def _linear(tensors: dict[str, StoredTensor], module: str) -> AwqLinear:
    path = tensors[module + _SUFFIX].path
    qweight = take_words(tensors, path, module + _SUFFIX, 2)
    columns, words = qweight.shape
    rows = words * _PER_WORD
    scales, groups = take_scales(tensors, path, f"{module}.scales", rows)
    if columns % groups:
        raise WrongShape(path, scales.name, f"{groups} groups do not divide {columns} inputs")
    qzeros = take_words(tensors, path, f"{module}.qzeros", 2).expect((groups, words))
    return AwqLinear(
        f"{module}.weight", (rows, columns), columns // groups, qweight, scales, qzeros
    )
