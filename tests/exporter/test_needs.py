"""What a bundle asks of a device, worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from exporter.needs import folded, needed_limits, weight_bytes
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


def test_weights_stay_codes_or_become_floats() -> None:
    stored = 576 * 576 // 2 + 576 * 18 * 4
    assert weight_bytes(TARGETS["webgpu-q4"], _weights(SMALL, SMALL)) == 2 * stored
    assert weight_bytes(TARGETS["wasm-q4"], _weights(SMALL, SMALL)) == 2 * 4 * 576 * 576
    unfolded = replace(TARGETS["wasm-q4"], matmul="matmul-nbits", heap_bytes=None)
    assert weight_bytes(unfolded, _weights(SMALL)) == stored


def test_what_does_not_fit_as_floats_stays_codes() -> None:
    stored, floats = 576 * 576 // 2 + 576 * 18 * 4, 4 * 576 * 576
    rows = [SMALL.model_copy(update={"name": name}) for name in ("a", "b", "c")]
    embedding = SMALL.model_copy(update={"name": "embedding", "role": "embedding"})
    weights = _weights(embedding, *rows)
    # Room for one more matrix than two in floats, and a byte too little for the third.
    tight = replace(TARGETS["wasm-q4"], heap_bytes=stored + 3 * floats - 1)
    assert folded(tight, weights.tensors) == ("a", "b")
    assert weight_bytes(tight, weights) == 2 * stored + 2 * floats
    roomy = replace(tight, heap_bytes=stored + 3 * floats)
    assert folded(roomy, weights.tensors) == ("a", "b", "c")
    assert weight_bytes(roomy, weights) == roomy.heap_bytes


def test_a_tied_matrix_is_there_twice() -> None:
    stored, floats = 576 * 576 // 2 + 576 * 18 * 4, 4 * 576 * 576
    tied = _weights(SMALL.model_copy(update={"role": "tied"}))
    assert weight_bytes(TARGETS["wasm-q4"], tied) == stored + floats
    assert folded(replace(TARGETS["wasm-q4"], heap_bytes=floats), tied.tensors) == ()
