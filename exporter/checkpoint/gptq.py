"""GPTQ's format, as AutoGPTQ and gptqmodel write it.

A linear [N, K] is kept transposed: ``qweight`` int32 [K * bits / 32, N], packed along K
with the lowest code in the lowest bits; ``scales`` [G, N]; ``qzeros`` int32
[G, N * bits / 32], packed along N; ``g_idx`` int32 [K], the group of each input.  With
act-order (``desc_act``) the inputs of a group are scattered over the linear.

The checkpoint format ``gptq`` keeps zero points less one, ``gptq_v2`` keeps them as they
are.  gptqmodel turns one into the other by adding to whole words, and a zero point of 0
borrows from its neighbour: the way back must be the same sum.
(https://github.com/ModelCloud/GPTQModel, ``convert_gptq_v1_to_v2_format_module``.)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.config import Part, read_part
from exporter.checkpoint.errors import UnsupportedScheme, WrongShape
from exporter.checkpoint.packing import WORD, describe, take_scales, take_words, unpack
from exporter.checkpoint.reordered import Reordered, group_order
from exporter.checkpoint.safetensors_file import StoredTensor

_SUFFIX = ".qweight"
_BITS = (4, 8)
#: What is to be added to each word of zero points, by checkpoint format: ones by code width.
_ADDED: MappingProxyType[str, dict[int, int]] = MappingProxyType(
    {"gptq": {4: 0x11111111, 8: 0x01010101}, "gptq_v2": {4: 0, 8: 0}}
)


@dataclass(frozen=True, eq=False)
class GptqLinear:
    """One linear; see :class:`exporter.checkpoint.weights.Packed`.

    ``order`` int32 [K] puts the columns in order of their groups; None when they are.
    """

    name: str
    shape: tuple[int, int]
    bits: int
    group_size: int
    qweight: StoredTensor
    stored_scales: StoredTensor
    qzeros: StoredTensor
    added: int
    order: NDArray[np.int32] | None

    @property
    def path(self) -> Path:
        """The file its codes are in."""
        return self.qweight.path

    @property
    def row_multiple(self) -> int:
        """Rows come in any number: codes are packed along K."""
        return 1

    @property
    def scheme(self) -> str:
        """How the checkpoint keeps it, in words for the ledger."""
        symmetric = self.zero_points() is None
        return describe("gptq", self.bits, self.group_size, self.shape[1], symmetric=symmetric)

    def codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Unsigned codes, uint8 [rows, K]: those that the file holds, columns in groups."""
        words = self.qweight.read_columns(start, stop)
        codes = unpack(words.T, self.bits)
        return codes if self.order is None else np.take(codes, self.order, axis=1)

    def scales(self) -> NDArray[np.float32]:
        """Scales, float32 [N, K / group_size]."""
        return np.ascontiguousarray(self.stored_scales.read().T.astype(np.float32))

    def zero_points(self) -> NDArray[np.uint8] | None:
        """Zero points, uint8 [N, K / group_size]; None when all are 2**(bits-1)."""
        words = self.qzeros.read().view(np.uint32) + np.uint32(self.added)
        points = unpack(words, self.bits)[:, : self.shape[0]]
        if (points == 1 << (self.bits - 1)).all():
            return None
        return np.ascontiguousarray(points.T)


class _Config(Part):
    bits: int
    checkpoint_format: str | None = None
    is_marlin_format: bool = False


class Gptq:
    """The format, as :class:`exporter.checkpoint.formats.Reader` asks.

    Width, groups, symmetry and order of each linear are read off its own tensors, so
    mixed checkpoints work; the config tells what no tensor shows.

    Raises:
        UnsupportedScheme: another width, or another layout than AutoGPTQ's.
    """

    name = "gptq"
    remarks: tuple[str, ...] = ()

    def __init__(self, config: object, path: Path) -> None:
        read = read_part(_Config, config, path, "quantization_config")
        layout = "marlin" if read.is_marlin_format else (read.checkpoint_format or "gptq").lower()
        if layout not in _ADDED:
            raise UnsupportedScheme(path, f"gptq in the layout of {layout}")
        if read.bits not in _BITS:
            raise UnsupportedScheme(path, f"gptq of {read.bits} bits")
        self._added = _ADDED[layout]

    def read(self, tensors: dict[str, StoredTensor]) -> Iterator[GptqLinear | Reordered]:
        """Take every quantised linear out of ``tensors``.

        Raises:
            TensorMissing, WrongShape: as any reader.
            UnsupportedScheme: a linear whose groups are not of equal size.
        """
        for key in [name for name in tensors if name.endswith(_SUFFIX)]:
            linear = self._linear(tensors, key.removesuffix(_SUFFIX))
            yield linear if linear.order is None else Reordered(linear, linear.order)

    def _linear(self, tensors: dict[str, StoredTensor], module: str) -> GptqLinear:
        path = tensors[module + _SUFFIX].path
        qweight = take_words(tensors, path, module + _SUFFIX, 2)
        g_idx = take_words(tensors, path, f"{module}.g_idx", 1)
        words, rows = qweight.shape
        columns = g_idx.shape[0]
        bits = next((bits for bits in _BITS if words * WORD == columns * bits), None)
        if bits is None:
            reason = f"{words} rows of words pack no 4- or 8-bit codes of {columns} inputs"
            raise WrongShape(path, qweight.name, reason)
        scales, groups = take_scales(tensors, path, f"{module}.scales", rows)
        qzeros = take_words(tensors, path, f"{module}.qzeros", 2)
        qzeros.expect((groups, -(-rows * bits // WORD)))
        return GptqLinear(
            name=f"{module}.weight",
            shape=(rows, columns),
            bits=bits,
            group_size=columns // groups,
            qweight=qweight,
            stored_scales=scales,
            qzeros=qzeros,
            added=self._added[bits],
            order=group_order(g_idx, groups, self.name),
        )
