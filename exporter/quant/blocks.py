"""Symmetric block quantisation of floats, data-free.

Each block of ``block`` values along K gets one float16 scale.  Eight bits: the largest
magnitude maps to 127 (round to nearest).  Four bits: among a few clipping factors, the
one with the least squared error, since at 16 levels a little clipping of the largest
value buys precision for the rest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Candidate scales are the block's largest magnitude divided by these.
_DIVISORS: dict[int, tuple[float, ...]] = {
    4: (7.0, 7.25, 7.5, 7.75, 8.0, 8.5, 9.0, 9.5),
    8: (127.0,),
}
_SMALLEST_NORMAL = np.float32(np.finfo(np.float16).smallest_normal)


def quantise(
    values: NDArray[np.float32], bits: int, block: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Quantise rows.

    Args:
        values: float32 [rows, K].
        bits: 4 or 8.
        block: values per scale; divides K.

    Returns:
        Unsigned codes uint8 [rows, K] with zero point 2**(bits-1), and scales float32
        [rows, K/block], each exactly a float16.  A block of zeros stays exactly zero.
    """
    rows, columns = values.shape
    blocks = values.reshape(rows, columns // block, block)
    largest = np.abs(blocks).max(axis=-1)
    low, high = -(1 << (bits - 1)), (1 << (bits - 1)) - 1
    best_codes = np.zeros(blocks.shape, np.int8)
    best_scales = np.ones(largest.shape, np.float32)
    best_error = np.full(largest.shape, np.inf, np.float32)
    for divisor in _DIVISORS[bits]:
        scales = _as_float16(largest / np.float32(divisor))
        scaled = blocks / scales[..., None]
        codes = np.clip(np.rint(scaled, out=scaled), low, high, out=scaled)
        error = np.square(codes * scales[..., None] - blocks).sum(axis=-1)
        better = error < best_error
        best_codes[better] = codes[better]
        best_scales[better] = scales[better]
        best_error[better] = error[better]
    unsigned = (best_codes.view(np.uint8) + np.uint8(1 << (bits - 1))).reshape(rows, columns)
    return unsigned, best_scales


def _as_float16(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Round scales to float16 normals; a block of zeros gets the scale 1."""
    rounded = np.maximum(scales, _SMALLEST_NORMAL).astype(np.float16).astype(np.float32)
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
