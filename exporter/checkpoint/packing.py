"""What formats that pack integer codes into 32-bit words have in common."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.errors import TensorMissing, WrongShape
from exporter.checkpoint.safetensors_file import StoredTensor

WORD = 32


def unpack(words: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Little-endian codes of 32-bit words [R, W], uint8 [R, W * 32 / bits]."""
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)
    if bits == 8:
        return octets
    codes = np.empty((len(words), octets.shape[1] * 2), np.uint8)
    codes[:, 0::2] = octets & 0x0F
    codes[:, 1::2] = octets >> 4
    return codes


def describe(method: str, bits: int, group_size: int, columns: int, *, symmetric: bool) -> str:
    """A scheme in words for the ledger, e.g. ``gptq int4 g128 symmetric``."""
    group = "per channel" if group_size == columns else f"g{group_size}"
    return f"{method} int{bits} {group} {'symmetric' if symmetric else 'asymmetric'}"


def take(tensors: dict[str, StoredTensor], path: Path, name: str) -> StoredTensor:
    """Take the part ``name`` of a weight that is in ``path`` out of ``tensors``.

    Raises:
        TensorMissing: it is not there.
    """
    if name not in tensors:
        raise TensorMissing(path, name)
    return tensors.pop(name)


def take_words(tensors: dict[str, StoredTensor], path: Path, name: str, rank: int) -> StoredTensor:
    """Take a part that must be int32 of ``rank`` axes, none of them empty.

    Raises:
        TensorMissing, WrongShape: it is not there, or something else.
    """
    tensor = take(tensors, path, name)
    if tensor.dtype != np.int32 or len(tensor.shape) != rank or 0 in tensor.shape:
        reason = f"{tensor.dtype.name} {list(tensor.shape)} where int32 of rank {rank} belongs"
        raise WrongShape(tensor.path, name, reason)
    return tensor


def take_scales(
    tensors: dict[str, StoredTensor], path: Path, name: str, rows: int
) -> tuple[StoredTensor, int]:
    """Take scales [groups, rows] and tell how many groups there are.

    Raises:
        TensorMissing, WrongShape: they are not there, or something else.
    """
    tensor = take(tensors, path, name)
    if len(tensor.shape) != 2 or tensor.shape[1] != rows or not tensor.shape[0]:
        reason = f"shape {list(tensor.shape)}, expected [groups, {rows}]"
        raise WrongShape(tensor.path, name, reason)
    if not tensor.is_float:
        raise WrongShape(tensor.path, name, f"scales of type {tensor.dtype.name}")
    return tensor, tensor.shape[0]
