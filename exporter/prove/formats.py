"""The checkpoint's side: every format once more, from its specification.

A linear [N, K] is found by the tensor that only its format has; see :data:`FORMATS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from exporter.prove.files import Tensors
from exporter.prove.values import Codes, Floats, Matrix, unpack

Config = Mapping[str, Any]
_Factory = Callable[[Tensors, str, Config], Matrix]

#: AWQ's words hold outputs 0, 2, 4, 6, 1, 3, 5, 7 from the lowest bits up.
_AWQ_ORDER = (0, 4, 1, 5, 2, 6, 3, 7)
_NF4_DTYPES: dict[str, np.dtype[Any]] = {
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
    "float32": np.dtype(np.float32),
}


def plain(values: NDArray[Any]) -> Matrix:
    """Floats as they are; float32 holds all that are 16 bits wide."""
    return Matrix(values.shape, lambda start, stop: values[start:stop].astype(np.float32))


def _groups(scales: NDArray[Any], rows: slice, columns: int) -> NDArray[Any]:
    """A number per value: ``scales`` [N or 1, G] spread over ``columns``."""
    chosen = scales[rows] if len(scales) > 1 else scales
    return np.repeat(chosen, columns // scales.shape[1], axis=1)


def _pack_quantized(tensors: Tensors, module: str, _: Config) -> Matrix:
    words = tensors[f"{module}.weight_packed"].view(np.uint32)
    rows, columns = (int(n) for n in tensors[f"{module}.weight_shape"])
    bits = 4 if words.shape[1] * 8 - columns in range(8) else 8
    scales = tensors[f"{module}.weight_scale"].astype(np.float32)
    groups = scales.shape[1]
    group_of = tensors.get(f"{module}.weight_g_idx")
    if group_of is None:
        group_of = np.arange(columns) // (columns // groups)
    middle = np.full(scales.shape, 1 << (bits - 1), np.int32)
    packed_zeros = tensors.get(f"{module}.weight_zero_point")
    if packed_zeros is not None:
        middle = unpack(np.ascontiguousarray(packed_zeros.T).view(np.uint32), bits)[:, :rows].T

    def read(start: int, stop: int) -> Codes:
        codes = unpack(words[start:stop], bits)[:, :columns]
        return Codes(codes - middle[start:stop, group_of], scales[start:stop, group_of])

    return Matrix((rows, columns), read)


def _beside(weight: NDArray[Any], scale: NDArray[np.float32], zeros: NDArray[Any] | None) -> Matrix:
    """int8 or float8 [N, K] with scales [], [1], [N], [N, 1] or [N, G] beside it."""
    columns = weight.shape[1]
    groups = scale.shape[1] if scale.ndim == 2 else 1
    scales = scale.reshape(-1, groups)
    middle = None if zeros is None else zeros.reshape(-1, groups).astype(np.int32)

    def read(start: int, stop: int) -> Codes | Floats:
        part = slice(start, stop)
        spread = np.broadcast_to(_groups(scales, part, columns), (stop - start, columns))
        if weight.dtype != np.int8:
            values: Floats = weight[part].astype(np.float32) * spread
            return values
        steps = weight[part].astype(np.int32)
        return Codes(steps if middle is None else steps - _groups(middle, part, columns), spread)

    return Matrix(weight.shape, read)


def _with_zeros(tensors: Tensors, module: str) -> NDArray[Any]:
    """A sparse weight, whole: its values where the bitmask has ones."""
    shape = tuple(int(n) for n in tensors[f"{module}.shape"].reshape(-1))
    octets = tensors[f"{module}.bitmask"]
    bits = (octets[..., None] >> np.arange(8, dtype=np.uint8)) & 1
    places = bits.reshape(*octets.shape[:-1], -1)[..., : shape[-1]] == 1
    if not places.any():
        return np.zeros(shape, np.float32)
    values = tensors[f"{module}.compressed"]
    dense = np.zeros(shape, values.dtype)
    dense[places] = values.reshape(-1)
    return dense


def _sparse(tensors: Tensors, module: str, _: Config) -> Matrix:
    return plain(_with_zeros(tensors, module))


def _scaled(tensors: Tensors, module: str, _: Config) -> Matrix:
    is_sparse = f"{module}.bitmask" in tensors
    return _beside(
        _with_zeros(tensors, module) if is_sparse else tensors[f"{module}.weight"],
        tensors[f"{module}.weight_scale"].astype(np.float32),
        tensors.get(f"{module}.weight_zero_point"),
    )


def _llm_int8(tensors: Tensors, module: str, _: Config) -> Matrix:
    scale = tensors[f"{module}.SCB"].astype(np.float32) / np.float32(127)
    return _beside(tensors[f"{module}.weight"], scale, None)


def _gptq(tensors: Tensors, module: str, config: Config) -> Matrix:
    words = tensors[f"{module}.qweight"].view(np.uint32)
    group_of = tensors[f"{module}.g_idx"]
    bits = words.shape[0] * 32 // len(group_of)
    stored_zeros = np.array(tensors[f"{module}.qzeros"].view(np.uint32))
    if (config.get("checkpoint_format") or "gptq").lower() == "gptq":
        # Kept less one; the sum is over whole words, as gptqmodel's own conversion is.
        stored_zeros += np.uint32(sum(1 << at for at in range(0, 32, bits)))
    rows = words.shape[1]
    zeros = unpack(stored_zeros, bits)[:, :rows]
    scales = tensors[f"{module}.scales"].astype(np.float32)

    def read(start: int, stop: int) -> Codes:
        codes = unpack(np.ascontiguousarray(words[:, start:stop].T), bits)
        return Codes(codes - zeros[group_of, start:stop].T, scales[group_of, start:stop].T)

    return Matrix((rows, len(group_of)), read)


def _awq(tensors: Tensors, module: str, _: Config) -> Matrix:
    def in_order(words: NDArray[np.uint32]) -> NDArray[np.int32]:
        codes = unpack(words, 4).reshape(len(words), -1, 8)
        return codes[:, :, _AWQ_ORDER].reshape(len(words), -1)

    words = tensors[f"{module}.qweight"].view(np.uint32)
    scales = tensors[f"{module}.scales"].astype(np.float32)
    zeros = in_order(tensors[f"{module}.qzeros"].view(np.uint32))
    columns = len(words)
    group_of = np.arange(columns) // (columns // len(scales))

    def read(start: int, stop: int) -> Codes:
        first = start // 8
        codes = in_order(words[:, first : -(-stop // 8)])[:, start - first * 8 : stop - first * 8]
        return Codes((codes - zeros[group_of, start:stop]).T, scales[group_of, start:stop].T)

    return Matrix((words.shape[1] * 8, columns), read)


def _nf4(tensors: Tensors, module: str, _: Config) -> Matrix:
    name = f"{module}.weight"
    state = json.loads(tensors[f"{name}.quant_state.bitsandbytes__nf4"].tobytes())
    rows, columns = state["shape"]
    octets = tensors[name].reshape(-1)
    factors = tensors[f"{name}.absmax"]
    if f"{name}.nested_absmax" in tensors:
        outer = np.repeat(tensors[f"{name}.nested_absmax"], state["nested_blocksize"])
        inner = tensors[f"{name}.nested_quant_map"][factors]
        factors = inner * outer[: len(inner)] + np.float32(state["nested_offset"])
    levels = tensors[f"{name}.quant_map"]

    def read(start: int, stop: int) -> Floats:
        part = octets[start * columns // 2 : stop * columns // 2]
        codes = np.stack((part >> 4, part & 15), axis=1).reshape(-1)
        block = np.arange(start * columns, stop * columns) // state["blocksize"]
        # The kernels round the product to the dtype that the weight had.
        with np.errstate(over="ignore"):
            rounded = (levels[codes] * factors[block]).astype(_NF4_DTYPES[state["dtype"]])
        values: Floats = rounded.astype(np.float32).reshape(-1, columns)
        return values

    return Matrix((rows, columns), read)


#: By ``quant_method``: the tensor beside a module's name that tells its format.
FORMATS: MappingProxyType[str, dict[str, _Factory]] = MappingProxyType(
    {
        "awq": {".qweight": _awq},
        "bitsandbytes": {".SCB": _llm_int8, ".weight.absmax": _nf4},
        "compressed-tensors": {
            ".weight_packed": _pack_quantized,
            ".weight_scale": _scaled,
            ".bitmask": _sparse,
        },
        "gptq": {".qweight": _gptq},
    }
)


def find(tensors: Tensors, name: str, config: Config) -> Matrix | None:
    """The weight ``name`` of a checkpoint with this ``quantization_config``, or None."""
    module = name.removesuffix(".weight")
    for suffix, factory in FORMATS.get(str(config.get("quant_method")), {}).items():
        if name.endswith(".weight") and f"{module}{suffix}" in tensors:
            return factory(tensors, module, config)
    values = tensors.get(name)
    return None if values is None else plain(values)
