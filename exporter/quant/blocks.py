"""Symmetric block quantisation of floats, data-free.

Each block of ``block`` values along K gets one float16 scale, which may be negative: of the
codes -8 to 7 the lone -8 then goes to the value of the largest magnitude, whatever its
sign.  docs/decisions/0012-scales-are-searched.md tells what that is worth.
"""

from __future__ import annotations

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from targets.catalog import RoundingMethod

#: Where ``search`` begins: codes, fractions of them too, that the value of the largest
#: magnitude goes to.  Beyond 8 it is clipped, which buys precision for the rest.
_PLACES: MappingProxyType[int, tuple[float, ...]] = MappingProxyType({4: (7.5, 8.0, 8.5, 9.0, 9.5)})
_LARGEST_HALF = float(np.finfo(np.float16).max)
_SMALLEST_NORMAL = np.float32(np.finfo(np.float16).smallest_normal)
#: The largest magnitude whose scale is still a float16, by code width.
LARGEST: dict[int, float] = {4: _LARGEST_HALF * 7, 8: _LARGEST_HALF * 127}
#: Values that are worked on at a time, so that they stay in the processor's cache.
_VALUES = 1 << 15


def quantise(
    values: NDArray[np.float32], bits: int, block: int, method: RoundingMethod
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise rows.

    Args:
        values: float32 [rows, K], none beyond :data:`LARGEST`.
        bits: 4 or 8.
        block: values per scale; divides K.
        method: ``nearest`` gives the largest magnitude of a block the last code, 7 or
            127; ``search`` looks for the scale with the least squared error, at 8 bits
            too near to ``nearest`` to look for.

    Returns:
        Unsigned codes uint8 [rows, K] with zero point 2**(bits-1), and scales float32
        [rows, K/block], each exactly a float16.  A value of zero stays exactly zero.
    """
    rows, columns = values.shape
    middle = 1 << (bits - 1)
    places = _PLACES.get(bits) if method == "search" else None
    blocks = values.reshape(-1, block)
    codes = np.empty(blocks.shape, np.uint8)
    scales = np.empty(len(blocks), np.float32)
    step = max(1, _VALUES // block)
    for start in range(0, len(blocks), step):
        part = blocks[start : start + step]
        chosen = _searched(part, places) if places else _reaching(part, middle - 1)
        chosen = _as_float16(chosen)
        steps = _steps(part, np.reciprocal(chosen), middle)
        steps += middle
        scales[start : start + step] = chosen
        codes[start : start + step] = steps
    return codes.reshape(rows, columns), scales.reshape(rows, columns // block)


def _reaching(blocks: NDArray[np.float32], last: int) -> NDArray[np.float32]:
    """Scales under which the largest magnitude of each block is ``last`` steps."""
    scales: NDArray[np.float32] = np.abs(blocks).max(axis=1) / np.float32(last)
    return scales


def _searched(blocks: NDArray[np.float32], places: tuple[float, ...]) -> NDArray[np.float32]:
    """For each block, the best of the scales that fit the codes of one of ``places``.

    Given codes c of values x, the scale of the least squared error is sum(c x) / sum(c c),
    and sum(c x)^2 / sum(c c) of the values' squares is what it explains.
    """
    at = np.abs(blocks).argmax(axis=1)[:, None]
    extremes = np.take_along_axis(blocks, at, axis=1)[:, 0]
    best = np.zeros(len(blocks), np.float32)
    scales = np.zeros(len(blocks), np.float32)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for place in places:
            # NaN in a block of zeros, which no comparison takes.
            codes = _steps(blocks, np.float32(-place) / extremes, 8)
            products = np.einsum("nk,nk->n", codes, blocks)
            ratios = products / np.einsum("nk,nk->n", codes, codes)
            better = products * ratios > best
            np.copyto(best, products * ratios, where=better)
            np.copyto(scales, ratios, where=better)
    return scales


def _steps(
    blocks: NDArray[np.float32], inverses: NDArray[np.float32], middle: int
) -> NDArray[np.float32]:
    """Whole multiples of the scales, from ``-middle`` to ``middle - 1``, that are nearest."""
    steps = blocks * inverses[:, None]
    np.rint(steps, out=steps)
    return np.clip(steps, -middle, middle - 1, out=steps)


def _as_float16(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round scales to float16 normals; a block of zeros gets the scale 1."""
    sizes = np.clip(np.abs(scales), _SMALLEST_NORMAL, _LARGEST_HALF)
    signed: NDArray[np.float32] = np.copysign(sizes, scales)
    rounded = signed.astype(np.float16).astype(np.float32)
    rounded[scales == 0] = 1.0
    return rounded


def dequantise(
    codes: NDArray[np.uint8],
    scales: NDArray[np.float32],
    zero_points: NDArray[np.uint8] | None,
    bits: int,
) -> NDArray[np.float32]:
    """Values of codes [rows, K] under scales and zero points [rows, K/block], float32."""
    rows, columns = codes.shape
    groups = scales.shape[1]
    centred = codes.reshape(rows, groups, columns // groups).astype(np.float32)
    if zero_points is None:
        centred -= 1 << (bits - 1)
    else:
        centred -= zero_points[..., None]
    return (centred * scales[..., None]).reshape(rows, columns)
