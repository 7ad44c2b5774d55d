"""What memory is for: GPU buffers by purpose, and the prediction's error."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from browser_harness.fit import gpu_sizes
from manifests.bundle import Manifest
from manifests.report import MemoryPoint
from manifests.work import GpuBuffers, MemoryLedger, Prediction

#: ``GPUBufferUsage.STORAGE``, of the WebGPU specification: what a shader reads and writes.
_STORAGE = 0x80


def account(
    manifest: Manifest,
    target: str,
    predicted: Prediction,
    rest: MemoryPoint,
    buffers: Sequence[GpuBuffers],
) -> MemoryLedger | None:
    """Sort what was held at rest; ``None`` where the page did not tell.

    A storage buffer without a label is a weight if its size is that of a stored tensor, as often
    as the manifest has tensors of that size, and else an activation: onnxruntime-web labels
    nothing, and the runtime everything that it makes.
    """
    if predicted.place == "wasm":
        held = rest.wasm_heap
        return None if held is None else MemoryLedger(predicted=predicted, held=held)
    entry = manifest.targets[target]
    labels = {state.input for state in entry.states}
    expected = Counter(
        size for row in manifest.weights[entry.weights].tensors for size in gpu_sizes(row, entry)
    )
    held = states = weights = activations = 0
    for group in buffers:
        size = group.size * group.count
        held += size
        if group.label in labels:
            states += size
        elif not group.label and group.usage & _STORAGE:
            stored = min(group.count, expected[group.size])
            expected[group.size] -= stored
            weights += group.size * stored
            activations += group.size * (group.count - stored)
    return MemoryLedger(
        predicted=predicted,
        held=held,
        gpu_weights=weights,
        gpu_states=states,
        gpu_activations=activations,
        gpu_other=held - weights - states - activations,
    )
