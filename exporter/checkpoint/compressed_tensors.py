"""compressed-tensors, as llm-compressor writes it.

``pack-quantized``: a linear [N, K] becomes ``weight_packed`` int32 [N, ceil(K * bits / 32)],
the lowest code in the lowest bits, codes offset by 2**(bits-1); ``weight_scale`` [N, K/group]
in the model's dtype; ``weight_shape`` int64 [2]; and, when asymmetric,
``weight_zero_point`` int32, packed the same way but along N.  Where versions up to 0.12 put
columns into groups by activation, ``weight_g_idx`` int32 [K] is the group of each.

``int-quantized``, ``float-quantized`` and ``naive-quantized``: ``weight`` itself is int8 or
float8_e4m3fn [N, K]; ``weight_scale`` is [1], [N, 1] or [N, K/group], ``weight_zero_point``
int8 likewise.  With a ``sparsity_config``, any ``weight`` may be kept as
:mod:`exporter.checkpoint.bitmask` says.  Read from
https://github.com/vllm-project/compressed-tensors and verified against its decompressor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from exporter.checkpoint import bitmask
from exporter.checkpoint.bitmask import Bitmasked
from exporter.checkpoint.config import Name, Part, read_part
from exporter.checkpoint.errors import UnsupportedScheme, WrongShape
from exporter.checkpoint.float8 import Float8
from exporter.checkpoint.int8 import Int8
from exporter.checkpoint.packing import WORD, describe, take, take_words, unpack
from exporter.checkpoint.reordered import Reordered, group_order
from exporter.checkpoint.safetensors_file import StoredTensor
from exporter.checkpoint.scales import scales_of
from exporter.checkpoint.weights import Stored

_NAME = "compressed-tensors"
_PACKED = ".weight_packed"
_SCALE = ".weight_scale"
_G_IDX = ".weight_g_idx"
#: What each format keeps, as far as it is read.
_KINDS = {
    "pack-quantized": ("int4", "int8"),
    "int-quantized": ("int8",),
    "float-quantized": ("float8",),
    "naive-quantized": ("int8", "float8"),
}


@dataclass(frozen=True, eq=False)
class PackQuantized:
    """One packed linear; see :class:`exporter.checkpoint.weights.Packed`.

    ``order`` int32 [K] puts the columns in order of their groups; None when they are.
    """

    name: str
    shape: tuple[int, int]
    bits: int
    group_size: int
    packed: StoredTensor
    scale: StoredTensor
    zero_point: StoredTensor | None
    order: NDArray[np.int32] | None

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
        symmetric = self.zero_point is None
        return describe(_NAME, self.bits, self.group_size, self.shape[1], symmetric=symmetric)

    def codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Unsigned codes, uint8 [rows, K]: those that the file holds, columns in groups."""
        words = self.packed.read_rows(start, stop)
        codes = unpack(words, self.bits)[:, : self.shape[1]]
        return codes if self.order is None else np.take(codes, self.order, axis=1)

    def scales(self) -> NDArray[np.float32]:
        """Scales, float32 [N, K / group_size]; exact from bf16, fp16 and fp32."""
        return self.scale.read().astype(np.float32)

    def zero_points(self) -> NDArray[np.uint8] | None:
        """Zero points in codes' units, uint8 [N, K / group_size], or None."""
        if self.zero_point is None:
            return None
        words = self.zero_point.read()
        along_rows = unpack(np.ascontiguousarray(words.T), self.bits)
        return np.ascontiguousarray(along_rows[:, : self.shape[0]].T)


@dataclass(frozen=True)
class Sparse(Stored):
    """Floats of which only those that are not zero are in the file."""

    stored: Bitmasked

    @property
    def scheme(self) -> str:
        """The format and the file's dtype."""
        return f"{_NAME} {self.stored.form} {self.stored.dtype.name}"


class _Numbers(Part):
    num_bits: int
    type: Name
    strategy: str | None = None
    dynamic: bool | str = False


class _Group(Part):
    format: str | None = None
    weights: _Numbers | None = None
    input_activations: _Numbers | None = None
    output_activations: object = None


class _Transforms(Part):
    config_groups: dict[str, object] = Field(default_factory=dict)


class _Sparsity(Part):
    format: str = "dense"


class _Config(Part):
    format: str | None = None
    sparsity_config: _Sparsity | None = None
    config_groups: dict[str, _Group] = Field(default_factory=dict)
    kv_cache_scheme: object = None
    transform_config: _Transforms = _Transforms()


class CompressedTensors:
    """The format, as :class:`exporter.checkpoint.formats.Reader` asks.

    Each linear's scheme is read off its own tensors, so mixed checkpoints work; the
    config is read to refuse what no tensor would show, and for the remarks.

    Raises:
        UnsupportedScheme: another kind of compressed-tensors.
    """

    name = _NAME

    def __init__(self, config: object, path: Path) -> None:
        read = read_part(_Config, config, path, "quantization_config")
        for name, group in read.config_groups.items():
            _check_group(name, group, group.format or read.format, path)
        sparsity = read.sparsity_config
        if sparsity is not None and sparsity.format not in {"dense", *bitmask.FORMATS}:
            raise UnsupportedScheme(path, f"{_NAME} with sparsity as {sparsity.format}")
        if read.kv_cache_scheme is not None:
            raise UnsupportedScheme(path, "compressed-tensors with a quantised KV cache")
        if read.transform_config.config_groups:
            raise UnsupportedScheme(path, "compressed-tensors with transforms")
        inputs = [g.input_activations for g in read.config_groups.values() if g.input_activations]
        self.remarks = tuple(dict.fromkeys(_remark(activations) for activations in inputs))
        self._has_input_scales = any(activations.dynamic is False for activations in inputs)

    def read(
        self, tensors: dict[str, StoredTensor]
    ) -> Iterator[PackQuantized | Reordered | Int8 | Float8 | Sparse]:
        """Take every compressed weight out of ``tensors``."""
        for key in [name for name in tensors if name.endswith(_PACKED)]:
            linear = self._packed(tensors, key.removesuffix(_PACKED))
            yield linear if linear.order is None else Reordered(linear, linear.order)
        sparse = {weight.name: weight for weight in bitmask.restore(tensors)}
        for key in [name for name in tensors if name.endswith(_SCALE)]:
            module = key.removesuffix(_SCALE)
            scale = tensors.pop(key)
            name = f"{module}.weight"
            weight = sparse.pop(name, None) or take(tensors, scale.path, name)
            zero_point = self._take_rest(module, weight, tensors)
            scales = scales_of(weight, scale)
            label = f"{_NAME} {weight.form}" if isinstance(weight, Bitmasked) else _NAME
            if zero_point is None and weight.dtype != np.int8:
                yield Float8(weight, scales, label)
            else:
                yield Int8(weight, scales, zero_point, label)
        for weight in sparse.values():
            yield Sparse(weight)

    def _packed(self, tensors: dict[str, StoredTensor], module: str) -> PackQuantized:
        packed = tensors.pop(f"{module}{_PACKED}")
        scale = take(tensors, packed.path, f"{module}{_SCALE}")
        stored_shape = take(tensors, packed.path, f"{module}.weight_shape").expect((2,))
        if stored_shape.dtype.kind != "i":
            raise WrongShape(packed.path, stored_shape.name, "is not of integers")
        shape = tuple(int(n) for n in stored_shape.read())
        g_idx = f"{module}{_G_IDX}"
        order_of = take_words(tensors, packed.path, g_idx, 1) if g_idx in tensors else None
        zero_point = self._take_rest(module, packed, tensors)
        return _linear(module, shape, packed, scale, zero_point, order_of)

    def _take_rest(
        self, module: str, weight: StoredTensor, tensors: dict[str, StoredTensor]
    ) -> StoredTensor | None:
        """The linear's zero points, its other tensors dropped or refused."""
        if f"{module}{_G_IDX}" in tensors:
            raise UnsupportedScheme(weight.path, f"activation ordering of unpacked {module}")
        if self._has_input_scales:
            # Fixed scales of activations, which a remark says are not quantised.
            for part in ("input_scale", "input_zero_point"):
                tensors.pop(f"{module}.{part}", None)
        return tensors.pop(f"{module}.weight_zero_point", None)


def _check_group(name: str, group: _Group, form: str | None, path: Path) -> None:
    weights = group.weights
    kind = f"{weights.type}{weights.num_bits}" if weights else "without weights"
    label = f"compressed-tensors {form} {kind} ({name})"
    if weights is None or form is None or kind not in _KINDS.get(form, ()):
        raise UnsupportedScheme(path, label)
    if weights.strategy == "block":
        raise UnsupportedScheme(path, f"{label} in blocks of rows and columns")
    if group.output_activations is not None:
        raise UnsupportedScheme(path, f"{label} with quantised outputs")


def _remark(activations: _Numbers) -> str:
    kind = f"{activations.type}{activations.num_bits}"
    when = "as it runs" if activations.dynamic else "by fixed scales"
    return (
        f"activations are meant to be rounded to {kind} {when}: "
        "the bundle has the weights, and floats for all activations"
    )


def _linear(
    module: str,
    shape: tuple[int, ...],
    packed: StoredTensor,
    scale: StoredTensor,
    zero_point: StoredTensor | None,
    g_idx: StoredTensor | None,
) -> PackQuantized:
    if len(shape) != 2 or min(shape) <= 0:
        raise WrongShape(packed.path, packed.name, f"weight_shape says {list(shape)}")
    rows, columns = shape
    widths = {bits: -(-columns * bits // WORD) for bits in (4, 8)}
    bits = next((b for b, words in widths.items() if packed.shape == (rows, words)), None)
    if bits is None or packed.dtype != np.int32:
        raise WrongShape(
            packed.path, packed.name, f"{list(packed.shape)} packs no 4- or 8-bit {list(shape)}"
        )
    if len(scale.shape) != 2 or scale.shape[0] != rows or not scale.shape[1] or not scale.is_float:
        reason = f"{scale.dtype} {list(scale.shape)} scales no packed {list(shape)}"
        raise WrongShape(scale.path, scale.name, reason)
    groups = scale.shape[1]
    if columns % groups:
        raise WrongShape(scale.path, scale.name, f"{groups} groups do not divide {columns}")
    if zero_point is not None and (
        zero_point.expect((-(-rows * bits // WORD), groups)).dtype != np.int32
    ):
        raise WrongShape(zero_point.path, zero_point.name, f"is {zero_point.dtype}, not int32")
    order = None if g_idx is None else group_order(g_idx.expect((columns,)), groups, _NAME)
    return PackQuantized(
        name=f"{module}.weight",
        shape=(rows, columns),
        bits=bits,
        group_size=columns // groups,
        packed=packed,
        scale=scale,
        zero_point=zero_point,
        order=order,
    )
