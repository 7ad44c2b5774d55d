"""The checkpoint's side for GGUF: headers as the gguf package reads them.

The package is llama.cpp's own; its names of tensors are those that its converter gives
the modules of a Hugging Face model.  Values are read here, but for types that none of
:data:`_FLOATS`, :data:`_STEPS_OF` and :data:`BLOCKS` has: these the package dequantises on
both sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from gguf import (
    GGML_QUANT_SIZES,
    MODEL_ARCH,
    MODEL_ARCH_NAMES,
    GGMLQuantizationType,
    GGUFReader,
    ReaderTensor,
    dequantize,
    get_tensor_name_map,
)
from numpy.typing import NDArray

from exporter.prove.gguf_blocks import BLOCKS
from exporter.prove.values import Codes, Floats, Matrix

#: Architectures whose converter changes the order of q's and k's rows, and whose adds 1
#: to norms.
_REORDERED = frozenset({"llama", "smollm3"})
_PLUS_ONE = frozenset({"gemma2", "gemma3"})
#: By tensor: the keys that may count its heads, the first one that is there.
_HEADS = MappingProxyType({"attn_q": ("head_count",), "attn_k": ("head_count_kv", "head_count")})
_FLOATS: MappingProxyType[GGMLQuantizationType, np.dtype[Any]] = MappingProxyType(
    {
        GGMLQuantizationType.F32: np.dtype("<f4"),
        GGMLQuantizationType.F16: np.dtype("<f2"),
        GGMLQuantizationType.BF16: np.dtype(ml_dtypes.bfloat16),
    }
)
_STEPS_OF = frozenset({GGMLQuantizationType.Q4_0, GGMLQuantizationType.Q8_0})


class GgufTensors:
    """The tensors of a GGUF model, mapped; its header was checked when it was opened."""

    def __init__(self, files: Iterable[Path]) -> None:
        readers = [GGUFReader(file) for file in files]
        self._tensors = {tensor.name: tensor for reader in readers for tensor in reader.tensors}
        self._fields = readers[0].fields
        self._architecture = str(self._field("general.architecture"))
        kinds = {name: kind for kind, name in MODEL_ARCH_NAMES.items()}
        kind: MODEL_ARCH = kinds[self._architecture]
        blocks = int(self._field(f"{self._architecture}.block_count"))
        self._names = get_tensor_name_map(kind, blocks)

    def matrix(self, name: str) -> Matrix | None:
        """The weight that a Hugging Face checkpoint calls ``name``, or None."""
        tensor = self._tensors.get(self._names.get_name(name, (".weight", ".bias")) or "")
        if tensor is None:
            return None
        # The package lists axes from the innermost out.
        shape = tuple(int(size) for size in reversed(tensor.shape))
        order = self._order(tensor, shape)
        if len(shape) == 1:
            whole = _values(np.asarray(tensor.data), tensor.tensor_type).reshape(-1)[order]
            if self._architecture in _PLUS_ONE and tensor.name.endswith("norm.weight"):
                whole = (whole.astype(np.float64) - 1).astype(np.float32)
            return Matrix(shape, lambda start, stop: whole[start:stop])
        data, kind = tensor.data, tensor.tensor_type

        def read(start: int, stop: int) -> Codes | Floats:
            # Mapped: only these rows are read.
            rows = np.asarray(data[order[start:stop]])
            if kind in _STEPS_OF:
                return _codes(rows.view(np.uint8).reshape(stop - start, shape[1] // 32, -1))
            return _values(rows, kind).reshape(stop - start, shape[1])

        return Matrix(shape, read)

    def _order(self, tensor: ReaderTensor, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """The row of the file for each row of the weight."""
        rows = np.arange(shape[0])
        keys = _HEADS.get(tensor.name.split(".")[2] if tensor.name.startswith("blk.") else "")
        if keys is None or self._architecture not in _REORDERED:
            return rows
        names = (f"{self._architecture}.attention.{key}" for key in keys)
        heads = int(self._field(next(name for name in names if name in self._fields)))
        return rows.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)

    def _field(self, key: str) -> Any:
        return self._fields[key].contents()


def _values(rows: NDArray[Any], kind: GGMLQuantizationType) -> Floats:
    octets = np.ascontiguousarray(rows).view(np.uint8)
    if kind in _FLOATS:
        floats: Floats = octets.view(_FLOATS[kind]).astype(np.float32)
        return floats
    if kind in BLOCKS:
        return BLOCKS[kind](octets.reshape(-1, GGML_QUANT_SIZES[kind][1]))
    values: Floats = dequantize(octets, kind)
    return values


def _codes(blocks: NDArray[np.uint8]) -> Codes:
    """Blocks [rows, K / 32, 18 or 34]: a float16 scale, then 32 steps of 4 or 8 bits."""
    rows = len(blocks)
    scales = np.ascontiguousarray(blocks[:, :, :2]).view("<f2").astype(np.float32)
    body = np.ascontiguousarray(blocks[:, :, 2:])
    if body.shape[2] == 32:
        steps = body.view(np.int8).astype(np.int32)
    else:
        steps = np.empty((*body.shape[:2], 32), np.int32)
        steps[:, :, :16] = body % 16
        steps[:, :, 16:] = body // 16
        steps -= 8
    return Codes(steps.reshape(rows, -1), np.repeat(scales[:, :, 0], 32, axis=1))
