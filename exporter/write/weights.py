"""Streams a checkpoint's weights into the shards that several targets share."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from exporter.checkpoint import Dense, Packed
from exporter.needs import code_bits
from exporter.write.shards import ShardWriter
from exporter.write.store import (
    Matrix,
    MatrixRole,
    StoredWeights,
    Vector,
    store_matrix,
    store_vector,
)
from manifests.bundle import File, Range, WeightSet
from manifests.progress import Progress
from targets import TARGETS, Target
from targets.catalog import RoundingMethod

#: Where a head or an embedding takes 4 bits, the scales of the least squared error clip what
#: it cannot spare (decision 0007).
HEAD_ROUNDING: RoundingMethod = "nearest"
#: A byte of default zero points, 2**(bits-1), by width.
_DEFAULT_ZERO_POINT = {4: 0x88, 8: 0x80}


def by_weight_set(targets: tuple[Target, ...]) -> dict[str, list[Target]]:
    """Group targets that read the same codes."""
    sets: dict[str, list[Target]] = {}
    for target in targets:
        sets.setdefault(target.weight_set, []).append(target)
    return sets


def shard_stem(weight_set: str) -> str:
    """Shards are named after the set's conventional graph, where transformers.js looks."""
    return next(t.graph for t in TARGETS.values() if t.weight_set == weight_set)


def write_weights(
    stage: Path,
    weights: list[Dense | Packed],
    roles: Mapping[str, MatrixRole],
    members: list[Target],
    progress: Progress,
) -> tuple[list[File], WeightSet, StoredWeights]:
    """Write the shards of the weight set that ``members`` share.

    ``roles`` are those of the matrices; other weights stay floats, and come last:
    onnxruntime reads all of them after the matrices, in no order.  One tensor's block of rows
    is in memory at a time.
    """
    target = members[0]
    vectors: list[Vector] = []
    matrices: list[Matrix] = []
    defaults: dict[int, Range] = {}
    phase = f"write {target.weight_set} weights"
    with ShardWriter(stage, shard_stem(target.weight_set), target.max_shard_bytes) as writer:
        for index, weight in enumerate(sorted(weights, key=lambda each: each.name not in roles)):
            progress(phase, index, len(weights))
            role = roles.get(weight.name)
            if role is None:
                assert isinstance(weight, Dense)
                vectors.append(store_vector(weight, writer))
            else:
                bits = code_bits(target, role)
                method = target.rounding if role == "linear" else HEAD_ROUNDING
                matrices.append(store_matrix(weight, role, bits, target.block_size, method, writer))
        if any(member.matmul == "dequantize-linear" for member in members):
            defaults = _write_default_zero_points(matrices, writer)
    progress(phase, len(weights), len(weights))
    store = StoredWeights(tuple(vectors), tuple(matrices), defaults)
    weight_set = WeightSet(
        shards=tuple(file.path for file in writer.files),
        digest=hashlib.sha256("".join(file.sha256 for file in writer.files).encode()).hexdigest(),
        tensors=store.rows,
    )
    return writer.files, weight_set, store


def _write_default_zero_points(matrices: list[Matrix], writer: ShardWriter) -> dict[int, Range]:
    """One range of default zero points per width, as long as the longest matrix needs.

    DequantizeLinear's own default is 0, not the middle; every symmetric matrix points here.
    """
    ranges = {}
    for bits, octet in _DEFAULT_ZERO_POINT.items():
        lengths = [
            -(-matrix.shape[0] * matrix.blocks * bits // 8)
            for matrix in matrices
            if matrix.bits == bits and matrix.zero_points is None
        ]
        if lengths:
            ranges[bits] = writer.begin(f"zero points of {bits} bits", max(lengths))
            writer.write(np.full(max(lengths), octet, np.uint8))
    return ranges
