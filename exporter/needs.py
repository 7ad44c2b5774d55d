"""What a device must have for a target's weights."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from manifests.bundle import Tensor, WeightSet
from targets import Target

#: WebGPU's own limits, which every adapter has (W3C WebGPU, section 3.6.2 "Limits").
_EVERYWHERE = {"maxBufferSize": 256 << 20, "maxStorageBufferBindingSize": 128 << 20}
_FLOAT = 4
#: Roles of matrices that products read.
_MULTIPLIED = frozenset({"linear", "head", "tied"})


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


def products(tensors: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The matrices that products read."""
    return tuple(row for row in tensors if row.role in _MULTIPLIED)


def folded(target: Target, tensors: Sequence[Tensor]) -> tuple[str, ...]:
    """Names of the matrices that ``target`` makes floats of, in the order of ``tensors``.

    As many as its heap has room for, the first ones first.  A product over codes takes about
    ten times as long there, whichever it is (decision 0020).
    """
    if target.heap_bytes is None:
        return ()
    room = target.heap_bytes - sum(size for row in tensors for size in _stored(row))
    chosen = []
    for row in products(tensors):
        room -= _more_as_floats(row)
        if room < 0:
            break
        chosen.append(row.name)
    return tuple(chosen)


def weight_bytes(target: Target, weights: WeightSet) -> int:
    """Bytes that the weights take in memory: as they are stored, or as floats where folded."""
    floats = set(folded(target, weights.tensors))
    stored = sum(size for row in weights.tensors for size in _stored(row))
    return stored + sum(_more_as_floats(row) for row in weights.tensors if row.name in floats)


def _more_as_floats(row: Tensor) -> int:
    # A tied matrix is needed as codes as well: its rows are gathered from them.
    return _FLOAT * prod(row.shape) - (0 if row.role == "tied" else sum(_stored(row)))


def _stored(row: Tensor) -> list[int]:
    places = (row.codes, row.scales, row.zero_points, row.permutation, row.values)
    return [place.length for place in places if place is not None]
