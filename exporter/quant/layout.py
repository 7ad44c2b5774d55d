"""Code layouts: how codes become the bytes that MatMulNBits and DequantizeLinear read.

For K divisible by the block size, MatMulNBits' B [N, K/block, block*bits/8] (low nibble
first) and ONNX's UINT4 or UINT8 [N, K] are the same bytes, so one file serves both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Block sizes that com.microsoft.MatMulNBits takes (powers of two from 16) and that
#: WebGPU's kernels were verified with.
BLOCK_SIZES = (128, 64, 32, 16)


def block_size_for(group_size: int) -> int | None:
    """The largest block that divides ``group_size``, or None when none does.

    A scale of a longer group is repeated for each of its blocks, which changes no value.
    """
    return next((block for block in BLOCK_SIZES if group_size % block == 0), None)


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Pack codes, uint8 [rows, n], into uint8 [rows, ceil(n * bits / 8)].

    Four-bit codes go two to a byte, the first in the low nibble; an odd row is filled
    up with zero.
    """
    if bits == 8:
        return codes
    if codes.shape[1] % 2:
        codes = np.pad(codes, ((0, 0), (0, 1)))
    return codes[:, 0::2] | (codes[:, 1::2] << np.uint8(4))


def widen(codes: NDArray[np.uint8], bits: int, to_bits: int) -> NDArray[np.uint8]:
    """Shift symmetric codes of ``bits`` to the middle of ``to_bits``: values are unchanged."""
    return codes + np.uint8((1 << (to_bits - 1)) - (1 << (bits - 1)))
