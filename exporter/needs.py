"""What a device must have for a target's weights."""

from __future__ import annotations

from math import prod

from manifests.bundle import Tensor, WeightSet
from targets import Target

#: WebGPU's own limits, which every adapter has (W3C WebGPU, section 3.6.2 "Limits").
_EVERYWHERE = {"maxBufferSize": 256 << 20, "maxStorageBufferBindingSize": 128 << 20}
_FLOAT = 4


def needed_limits(target: Target, weights: WeightSet) -> dict[str, int]:
    """The least GPU limits, by WebGPU's names.

    A tensor is one buffer and one binding: a small model needs no more than every adapter
    has, whatever a target's largest model may need.
    """
    largest = max((size for row in weights.tensors for size in _stored(row)), default=0)
    return {
        name: max(largest, _EVERYWHERE[name]) if name in _EVERYWHERE else least
        for name, least in target.limits.items()
    }


def weight_bytes(target: Target, weights: WeightSet) -> int:
    """Bytes that the weights take in memory: as they are stored, or as floats where folded."""
    if target.matmul == "folded-dequantize":
        return _FLOAT * sum(prod(row.shape) for row in weights.tensors)
    return sum(size for row in weights.tensors for size in _stored(row))


def _stored(row: Tensor) -> list[int]:
    places = (row.codes, row.scales, row.zero_points, row.permutation, row.values)
    return [place.length for place in places if place is not None]
