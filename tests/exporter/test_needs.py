"""What a bundle asks of a device, worked out by hand."""

from __future__ import annotations

import pytest

from exporter.needs import needed_limits, weight_bytes
from manifests.bundle import Range, Tensor, WeightSet
from targets import TARGETS

MIB = 1 << 20
SHARD = "onnx/data"


def _row(name: str, shape: tuple[int, int], codes: int, scales: int) -> Tensor:
    return Tensor(
        name=name,
        role="linear",
        shape=shape,
        source="bfloat16",
        outcome="requantised",
        bits=4,
        block_size=32,
        codes=Range(file=SHARD, offset=0, length=codes),
        scales=Range(file=SHARD, offset=codes, length=scales),
        scale_dtype="float32",
    )


def _weights(*rows: Tensor) -> WeightSet:
    return WeightSet(shards=(SHARD,), digest="0" * 64, tensors=rows)


#: 152064 x 4096, as large vocabularies have it: 297 MiB of codes at 4 bits.
HEAD = _row("lm_head", (152064, 4096), 152064 * 4096 // 2, 152064 * 128 * 4)
SMALL = _row("q_proj", (576, 576), 576 * 576 // 2, 576 * 18 * 4)


@pytest.mark.parametrize(
    ("rows", "buffer", "binding"),
    [
        ((SMALL,), 256 * MIB, 128 * MIB),
        ((SMALL, HEAD), 297 * MIB, 297 * MIB),
        ((), 256 * MIB, 128 * MIB),
    ],
    ids=["small", "large head", "none"],
)
def test_limits_follow_from_the_largest_tensor(
    rows: tuple[Tensor, ...], buffer: int, binding: int
) -> None:
    assert needed_limits(TARGETS["webgpu-q4"], _weights(*rows)) == {
        "maxBufferSize": buffer,
        "maxStorageBufferBindingSize": binding,
        "maxStorageBuffersPerShaderStage": 9,
    }


def test_a_target_without_a_gpu_asks_for_no_limits() -> None:
    assert needed_limits(TARGETS["wasm-q4"], _weights(HEAD)) == {}


def test_on_a_gpu_weights_lie_as_they_are_stored() -> None:
    stored = 576 * 576 // 2 + 576 * 18 * 4
    assert weight_bytes(TARGETS["webgpu-q4"], _weights(SMALL, SMALL)) == 2 * stored


def test_on_a_cpu_scales_are_floats_and_zero_points_bytes() -> None:
    halves = Range(file=SHARD, offset=0, length=576 * 18 * 2)
    nibbles = Range(file=SHARD, offset=0, length=576 * 18 // 2)
    order = Range(file=SHARD, offset=0, length=576 * 4)
    stored = {"scales": halves, "scale_dtype": "float16", "zero_points": nibbles}
    row = SMALL.model_copy(update={**stored, "permutation": order})
    codes = 576 * 576 // 2
    packed = codes + 576 * 18 * 4 + 576 * 18
    wasm = TARGETS["wasm-q4"]
    assert weight_bytes(wasm, _weights(row)) == packed + 576 * 4
    # An embedding's rows are gathered from what is stored.
    assert weight_bytes(wasm, _weights(row.model_copy(update={"role": "embedding"}))) == (
        codes + 576 * 18 * 2 + 576 * 18 // 2 + 576 * 4
    )


def test_on_a_cpu_a_tied_matrix_is_there_twice() -> None:
    stored = 576 * 576 // 2 + 576 * 18 * 4
    tied = _weights(SMALL.model_copy(update={"role": "tied"}))
    assert weight_bytes(TARGETS["wasm-q4"], tied) == 2 * stored
