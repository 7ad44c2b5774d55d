"""compressed-tensors' ``pack-quantized`` format, as llm-compressor writes it.

A linear [N, K] becomes ``weight_packed`` int32 [N, ceil(K * bits / 32)], the lowest
code in the lowest bits, codes offset by 2**(bits-1); ``weight_scale`` [N, K/group] in
the model's dtype; ``weight_shape`` int64 [2]; and, when asymmetric,
``weight_zero_point`` int32, packed the same way but along N.  Read from
https://github.com/vllm-project/compressed-tensors and verified against its decompressor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from exporter.checkpoint.config import Part, read_part
from exporter.checkpoint.errors import TensorMissing, UnsupportedScheme, WrongShape
from exporter.checkpoint.safetensors_file import StoredTensor

_SUFFIX = ".weight_packed"
_WORD = 32


@dataclass(frozen=True)
class PackQuantized:
    """One packed linear; see :class:`exporter.checkpoint.weights.Packed`."""

    name: str
    shape: tuple[int, int]
    bits: int
    group_size: int
    packed: StoredTensor
    scale: StoredTensor
    zero_point: StoredTensor | None

    @property
    def path(self) -> Path:
        """The file its codes are in."""
        return self.packed.path

    @property
    def row_multiple(self) -> int:
        """Rows come in any number: only zero points are packed across rows."""
        return 1

    @property
    def scheme(self) -> str:
        """How the checkpoint keeps it, in words for the ledger."""
        group = "per channel" if self.group_size == self.shape[1] else f"g{self.group_size}"
        kind = "symmetric" if self.zero_point is None else "asymmetric"
        return f"compressed-tensors int{self.bits} {group} {kind}"

    def codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Unsigned codes, uint8 [rows, K]: those that the file holds, unchanged."""
        words = self.packed.read_rows(start, stop)
        return _unpack(words, self.bits)[:, : self.shape[1]]

    def scales(self) -> NDArray[np.float32]:
        """Scales, float32 [N, K / group_size]; exact from bf16, fp16 and fp32."""
        return self.scale.read().astype(np.float32)

    def zero_points(self) -> NDArray[np.uint8] | None:
        """Zero points in codes' units, uint8 [N, K / group_size], or None."""
        if self.zero_point is None:
            return None
        words = self.zero_point.read()
        along_rows = _unpack(np.ascontiguousarray(words.T), self.bits)
        return np.ascontiguousarray(along_rows[:, : self.shape[0]].T)


def _unpack(words: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Little-endian codes of int32 words [R, W], uint8 [R, W * 32 / bits]."""
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(len(words), -1)
    if bits == 8:
        return octets
    codes = np.empty((len(words), octets.shape[1] * 2), np.uint8)
    codes[:, 0::2] = octets & 0x0F
    codes[:, 1::2] = octets >> 4
    return codes


class _Weights(Part):
    num_bits: int
    type: str


class _Group(Part):
    format: str | None = None
    weights: _Weights | None = None
    input_activations: object = None


class _Transforms(Part):
    config_groups: dict[str, object] = Field(default_factory=dict)


class _Config(Part):
    format: str | None = None
    config_groups: dict[str, _Group] = Field(default_factory=dict)
    kv_cache_scheme: object = None
    transform_config: _Transforms = _Transforms()


class CompressedTensors:
    """The format, as :class:`exporter.checkpoint.formats.Reader` asks.

    Each linear's scheme is read off its own tensors, so mixed checkpoints work; the
    config is read only to refuse what no tensor would show.

    Raises:
        UnsupportedScheme: another kind of compressed-tensors.
    """

    name = "compressed-tensors"

    def __init__(self, config: object, path: Path) -> None:
        read = read_part(_Config, config, path, "quantization_config")
        for name, group in read.config_groups.items():
            _check_group(name, group, group.format or read.format, path)
        if read.kv_cache_scheme is not None:
            raise UnsupportedScheme(path, "compressed-tensors with a quantised KV cache")
        if read.transform_config.config_groups:
            raise UnsupportedScheme(path, "compressed-tensors with transforms")

    def read(self, tensors: dict[str, StoredTensor]) -> Iterator[PackQuantized]:
        """Take every packed linear out of ``tensors``."""
        for key in [name for name in tensors if name.endswith(_SUFFIX)]:
            module = key.removesuffix(_SUFFIX)
            packed = tensors.pop(key)
            scale = _take(tensors, packed.path, f"{module}.weight_scale")
            shape = tuple(
                int(n) for n in _take(tensors, packed.path, f"{module}.weight_shape").read()
            )
            if f"{module}.weight_g_idx" in tensors:
                raise UnsupportedScheme(packed.path, f"activation ordering of {module}")
            yield _linear(
                module, shape, packed, scale, tensors.pop(f"{module}.weight_zero_point", None)
            )


def _check_group(name: str, group: _Group, form: str | None, path: Path) -> None:
    weights = group.weights
    kind = f"{weights.type}{weights.num_bits}" if weights else "without weights"
    label = f"compressed-tensors {form} {kind} ({name})"
    if form != "pack-quantized" or kind not in ("int4", "int8"):
        raise UnsupportedScheme(path, label)
    if group.input_activations is not None:
        raise UnsupportedScheme(path, f"{label} with quantised activations")


def _take(tensors: dict[str, StoredTensor], path: Path, name: str) -> StoredTensor:
    if name not in tensors:
        raise TensorMissing(path, name)
    return tensors.pop(name)


def _linear(
    module: str,
    shape: tuple[int, ...],
    packed: StoredTensor,
    scale: StoredTensor,
    zero_point: StoredTensor | None,
) -> PackQuantized:
    if len(shape) != 2 or min(shape) <= 0:
        raise WrongShape(packed.path, packed.name, f"weight_shape says {list(shape)}")
    rows, columns = shape
    widths = {bits: -(-columns * bits // _WORD) for bits in (4, 8)}
    bits = next((b for b, words in widths.items() if packed.shape == (rows, words)), None)
    if bits is None or packed.dtype != np.int32:
        raise WrongShape(
            packed.path, packed.name, f"{list(packed.shape)} packs no 4- or 8-bit {list(shape)}"
        )
    if len(scale.shape) != 2 or scale.shape[0] != rows or not scale.shape[1]:
        raise WrongShape(packed.path, scale.name, f"shape {list(scale.shape)} for {list(shape)}")
    groups = scale.shape[1]
    if columns % groups:
        raise WrongShape(packed.path, scale.name, f"{groups} groups do not divide {columns}")
    if zero_point is not None:
        zero_point.expect((-(-rows * bits // _WORD), groups))
    return PackQuantized(
        f"{module}.weight", (rows, columns), bits, columns // groups, packed, scale, zero_point
    )
