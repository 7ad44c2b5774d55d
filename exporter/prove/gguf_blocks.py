"""Values of GGML's block types, byte by byte from their definitions.

From https://github.com/ggml-org/ggml, src/ggml-common.h and src/ggml-quants.c: the products
and sums are in float32 and in the order that they have there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from exporter.prove.values import Floats

_Octets = NDArray[np.uint8]


def _half(octets: _Octets) -> Floats:
    """Two bytes of each block as a float16: float32 [blocks, 1]."""
    return np.ascontiguousarray(octets).view("<f2").astype(np.float32)


def _q4_1(blocks: _Octets) -> Floats:
    """Scale, least value, 16 bytes: the low halves are values 0 to 15, the high ones 16 to 31."""
    codes = np.concatenate((blocks[:, 4:] % 16, blocks[:, 4:] // 16), axis=1)
    values: Floats = _half(blocks[:, :2]) * codes.astype(np.float32) + _half(blocks[:, 2:4])
    return values


def _scale_and_least(packed: _Octets, part: int) -> tuple[Floats, Floats]:
    """The 6-bit scale and least value of the 32 values ``part`` of a block, from 12 bytes."""
    if part < 4:
        scale, least = packed[:, part] & 63, packed[:, part + 4] & 63
    else:
        low = packed[:, part + 4]
        scale = (low & 15) | (packed[:, part - 4] >> 6 << 4)
        least = (low >> 4) | (packed[:, part] >> 6 << 4)
    return scale.astype(np.float32)[:, None], least.astype(np.float32)[:, None]


def _q4_k(blocks: _Octets) -> Floats:
    """Scale, scale of the least values, 12 bytes of both for eight parts, 128 of codes."""
    return _parts(blocks[:, :16], blocks[:, 16:], None)


def _q5_k(blocks: _Octets) -> Floats:
    """Q4_K with 32 bytes before the codes: bit ``part`` of byte i is value i's fifth."""
    return _parts(blocks[:, :16], blocks[:, 48:], blocks[:, 16:48])


def _parts(head: _Octets, codes: _Octets, fifth: _Octets | None) -> Floats:
    values = np.empty((len(head), 256), np.float32)
    for part in range(8):
        # Two parts share 32 bytes: the first has the low halves.
        octets = codes[:, part // 2 * 32 : part // 2 * 32 + 32]
        steps = octets >> 4 if part % 2 else octets & 15
        if fifth is not None:
            steps = steps + 16 * (fifth >> part & 1)
        scale, least = _scale_and_least(head[:, 4:], part)
        product = _half(head[:, :2]) * scale * steps.astype(np.float32)
        values[:, part * 32 : part * 32 + 32] = product - _half(head[:, 2:4]) * least
    return values


def _q6_k(blocks: _Octets) -> Floats:
    """128 bytes of low halves, 64 of two high bits, 16 signed scales, a float16 scale."""
    lows, highs = blocks[:, :128], blocks[:, 128:192]
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    whole = _half(blocks[:, 208:])
    values = np.empty((len(blocks), 256), np.float32)
    for part in range(16):
        # A half of a block is 128 values: four runs of 32, each with two scales.
        half, run, first = part // 8, part % 8 // 2, part % 2 * 16
        low = lows[:, half * 64 + run % 2 * 32 + first :][:, :16]
        high = highs[:, half * 32 + first :][:, :16]
        steps = (low >> 4 if run >= 2 else low & 15) | (high >> 2 * run & 3) << 4
        product = whole * scales[:, part : part + 1]
        values[:, part * 16 : part * 16 + 16] = product * (steps.astype(np.float32) - 32)
    return values


#: By type: from blocks, uint8 [blocks, bytes], to float32 [blocks, values].
BLOCKS: Mapping[GGMLQuantizationType, Callable[[_Octets], Floats]] = MappingProxyType(
    {
        GGMLQuantizationType.Q4_1: _q4_1,
        GGMLQuantizationType.Q4_K: _q4_k,
        GGMLQuantizationType.Q5_K: _q5_k,
        GGMLQuantizationType.Q6_K: _q6_k,
    }
)
