"""What a device must have for a target's weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import prod

from exporter.checkpoint import Dense, Packed
from manifests.bundle import WeightSet
from targets import Target

#: WebGPU's own limits, which every adapter has (W3C WebGPU, section 3.6.2 "Limits").
_EVERYWHERE = {"maxBufferSize": 256 << 20, "maxStorageBufferBindingSize": 128 << 20}
_FLOAT = 4


def needed_limits(target: Target, weights: WeightSet) -> dict[str, int]:
    """The least GPU limits, by WebGPU's names.

    A tensor is one buffer and one binding: a small model needs no more than every adapter
    has, whatever a target's largest model may need.
    """
    largest = max((place.length for row in weights.tensors for _, place in row.parts()), default=0)
    return {
        name: max(largest, _EVERYWHERE[name]) if name in _EVERYWHERE else least
        for name, least in target.limits.items()
    }


def code_bits(target: Target, role: str) -> int:
    """The width of a matrix's codes: head and embedding have their own."""
    return target.bits if role == "linear" else target.head_bits


def least_bytes(target: Target, weights: Iterable[Dense | Packed], roles: Mapping[str, str]) -> int:
    """What ``weights`` take at least, told before one is read: codes, and floats of the rest.

    ``roles`` are those of the matrices.  Scales and zero points come on top.
    """
    return sum(
        prod(weight.shape) * code_bits(target, roles[weight.name]) // 8
        if weight.name in roles
        else prod(weight.shape) * _FLOAT
        for weight in weights
    )


def weight_bytes(target: Target, weights: WeightSet) -> int:
    """Bytes that the weights take in memory, once loaded."""
    on_gpu = target.execution_provider == "webgpu"
    return sum(row.stored_bytes if on_gpu else row.heap_bytes for row in weights.tensors)
