"""What a target needs, worked by hand, and buffers sorted by what they are for."""

from __future__ import annotations

from pathlib import Path

import pytest

import tabwright
from browser_harness.fit import PROFILES, fit, objections, predict, render
from browser_harness.ledger import account
from browser_harness.report.sweeps import memory_sentence
from manifests.bundle import Manifest, Range, State, Tensor
from manifests.report import Memory, MemoryPoint
from manifests.work import GpuBuffers
from tests.browser.fake_bundle import write_bundle
from tests.unit.reports import wasm_target

SHARD = "onnx/model_q4.onnx_data"
MIB = 1 << 20


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    """A linear of 64 by 32 and a norm; a cache of 6 heads of 64, and 100,000 positions of it."""
    written = write_bundle(tmp_path, ("wasm-q4", "webgpu-q4"), context_length=100_000)
    tensors = (
        Tensor(
            name="linear", role="linear", shape=(64, 32), source="int4", outcome="exact",
            bits=4, block_size=32, codes=Range(file=SHARD, offset=0, length=100),
            scales=Range(file=SHARD, offset=0, length=128), scale_dtype="float16",
        ),
        Tensor(
            name="norm", role="float", shape=(32,), source="float32", outcome="exact",
            values=Range(file=SHARD, offset=0, length=128), value_dtype="float32",
        ),
    )  # fmt: skip
    cache = State(
        input="past_key_values.0.key", output="present.0.key", dtype="float32",
        shape=("batch_size", 6, "past_sequence_length", 64),
    )  # fmt: skip
    weights = written.weights["q4"].model_copy(update={"tensors": tensors})
    targets = {
        name: entry.model_copy(update={"states": (cache,)})
        for name, entry in written.targets.items()
    }
    resident = targets["webgpu-q4"].model_copy(update={"resident_graph": "onnx/model_q4.onnx"})
    return written.model_copy(
        update={"weights": {"q4": weights}, "targets": {**targets, "webgpu-q4": resident}}
    )


def test_on_a_gpu_the_cache_grows_in_whole_steps(manifest: Manifest) -> None:
    need = predict(manifest, "webgpu-q4", 100)
    # Codes rounded up to 16 bytes, scales widened to float32, the norm as it is.
    assert need.weights == 112 + 256 + 128
    # A position is 1536 bytes, and there is room for 256 at first.
    assert need.states == 256 * 1536
    assert predict(manifest, "webgpu-q4", 257).states == 2 * 256 * 1536
    # No more than the model's context.
    assert predict(manifest, "webgpu-q4", 99_999).states == 100_000 * 1536
    # Two rows of the widest linear for each of 100 positions, and a row of 8 logits.
    assert need.activations == 2 * 100 * 64 * 4 + 8 * 4
    conventional = manifest.targets["webgpu-q4"].model_copy(update={"resident_graph": None})
    plain = manifest.model_copy(update={"targets": {"webgpu-q4": conventional}})
    assert predict(plain, "webgpu-q4", 100).states == 2 * 100 * 1536


def test_on_a_cpu_scales_are_floats(manifest: Manifest) -> None:
    need = predict(manifest, "wasm-q4", 1000)
    # Codes, 64 scales widened to float32, and the norm as it is stored.
    assert need.weights == 100 + 256 + 128
    # In place, in steps of 128 positions.
    assert need.states == 1024 * 1536
    # 128 positions are fed at once.
    assert need.activations == 2 * 128 * 64 * 4 + 8 * 4
    assert need.total == need.weights + need.states + need.activations + 50 * MIB


def test_on_a_cpu_a_tied_head_is_there_twice(manifest: Manifest) -> None:
    weights = manifest.weights["q4"]
    linear, norm = weights.tensors
    tied = linear.model_copy(update={"role": "tied"})
    both = weights.model_copy(update={"tensors": (tied, norm)})
    need = predict(manifest.model_copy(update={"weights": {"q4": both}}), "wasm-q4", 1000)
    assert need.weights == (100 + 256) + (100 + 128) + 128


def test_what_does_not_fit_is_told(manifest: Manifest) -> None:
    need = predict(manifest, "wasm-q4", 100)
    large = need.model_copy(update={"weights": 5 << 30})
    assert objections(need, PROFILES["2gb"]) == ()
    small, heap = objections(large, PROFILES["8gb"])
    assert "needs 5.4" in small
    assert "a page gets 4.295 GB" in small
    assert "there are 4.295 GB" in heap
    # On a GPU no heap is in the way.
    assert objections(large.model_copy(update={"place": "gpu"}), PROFILES["16gb"]) == ()
    text = render(fit(manifest, ["webgpu-q4"], [100]))
    assert "fits from 2gb on" in text


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(tmp_path, ("wasm-q4",))
    assert tabwright.call(["fit", str(tmp_path), "--context", "9999"]) == 0
    # No text is longer than the model's context.
    assert "at 64 positions" in capsys.readouterr().out
    assert tabwright.call(["fit", str(tmp_path), "--target", "webgpu-q8"]) == 2


def test_buffers_by_purpose(manifest: Manifest) -> None:
    need = predict(manifest, "webgpu-q4", 100)
    rest = MemoryPoint(at_ms=0, phase="rest", renderer_pss=1, gpu_process_pss=500)
    buffers = (
        GpuBuffers(label="past_key_values.0.key", usage=0x8C, size=768, count=10),
        GpuBuffers(label="", usage=0x8C, size=112, count=1),
        # One of these can be the scales: there is only one tensor of that size.
        GpuBuffers(label="", usage=0x8C, size=256, count=3),
        # No shader writes to a uniform buffer, nor to one that is mapped.
        GpuBuffers(label="", usage=0x48, size=256, count=1),
        GpuBuffers(label="", usage=0x09, size=112, count=1),
        GpuBuffers(label="sampler", usage=0x8C, size=128, count=1),
    )
    ledger = account(manifest, "webgpu-q4", need, rest, buffers)
    assert ledger is not None
    assert ledger.held == 7680 + 112 + 3 * 256 + 256 + 112 + 128
    assert (ledger.gpu_states, ledger.gpu_weights) == (7680, 112 + 256)
    assert (ledger.gpu_activations, ledger.gpu_other) == (512, 256 + 112 + 128)


def test_the_error_of_the_prediction_is_told(manifest: Manifest) -> None:
    need = predict(manifest, "wasm-q4", 100)
    rest = MemoryPoint(
        at_ms=0, phase="rest", renderer_pss=200 * MIB, gpu_process_pss=0,
        js_heap=20 * MIB, wasm_heap=need.total + need.total // 10,
    )  # fmt: skip
    ledger = account(manifest, "wasm-q4", need, rest, ())
    memory = Memory(peak=rest, rest=rest, timeline=(rest,))
    told = memory_sentence(wasm_target().model_copy(update={"ledger": ledger, "memory": memory}))
    assert "+10.0% of the" in told
    # What is in neither heap: PSS less both.
    unexplained = 180 * MIB - (rest.wasm_heap or 0)
    assert f"{unexplained / 1e6:.1f} MB is in neither heap" in told
    blind = rest.model_copy(update={"wasm_heap": None})
    assert account(manifest, "wasm-q4", need, blind, ()) is None
