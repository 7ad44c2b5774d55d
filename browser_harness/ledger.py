"""What memory is for: GPU buffers by purpose, and the prediction's error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from browser_harness.fit import gpu_sizes
from manifests.bundle import Manifest
from manifests.report import MemoryPoint
from manifests.work import GpuBuffers, MemoryLedger, Prediction


def account(
    manifest: Manifest,
    target: str,
    predicted: Prediction,
    rest: MemoryPoint,
    buffers: Sequence[GpuBuffers],
) -> MemoryLedger | None:
    """Sort what was held at rest; ``None`` where the page did not tell.

    A buffer without a label is a weight if its size is that of a stored tensor, as often
    as the manifest has tensors of that size.
    """
    if predicted.place == "wasm":
        held = rest.wasm_heap
        return None if held is None else MemoryLedger(predicted=predicted, held=held)
    entry = manifest.targets[target]
    labels = {state.input for state in entry.states}
    expected = Counter(
        size for row in manifest.weights[entry.weights].tensors for size in gpu_sizes(row, entry)
    )
    held = states = weights = 0
    for group in buffers:
        held += group.size * group.count
        if group.label in labels:
            states += group.size * group.count
        elif not group.label:
            weights += group.size * min(group.count, expected[group.size])
    return MemoryLedger(
        predicted=predicted,
        held=held,
        gpu_weights=weights,
        gpu_states=states,
        gpu_other=held - weights - states,
    )
