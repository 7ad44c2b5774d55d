"""Bytes, bandwidth, calls and words: worked by hand."""

from __future__ import annotations

import pytest

from browser_harness.judge.figures import figure
from browser_harness.judge.metrics import METRICS
from browser_harness.judge.proposal import propose
from browser_harness.roofline import gpu_time, work_of
from browser_harness.speed import decode_run
from manifests.bundle import Manifest, Range, State, Tensor
from manifests.page import GenerateResult, GpuCalls
from manifests.report import DecodeRun, TargetReport
from manifests.work import Bandwidth, GpuPasses, GpuTime, TextYield, Work
from tests.browser.fake_bundle import write_bundle
from tests.unit.reports import sample_report, wasm_target


def manifest(tmp_path: object, *tensors: Tensor, states: tuple[State, ...] = ()) -> Manifest:
    written = write_bundle(tmp_path, ("wasm-q4", "webgpu-q4"))  # type: ignore[arg-type]
    weights = written.weights["q4"].model_copy(update={"tensors": tensors})
    targets = {
        name: entry.model_copy(update={"states": states}) for name, entry in written.targets.items()
    }
    return written.model_copy(update={"weights": {"q4": weights}, "targets": targets})


def stored(length: int) -> Range:
    return Range(file="onnx/model_q4.onnx_data", offset=0, length=length)


def packed(role: str, shape: tuple[int, int], codes: int, scales: int) -> Tensor:
    return Tensor.model_validate(
        {
            "name": role,
            "role": role,
            "shape": shape,
            "source": "int4 g32 symmetric",
            "outcome": "exact",
            "codes": stored(codes),
            "scales": stored(scales),
            "scale_dtype": "float16",
        }
    )


def test_bytes_of_a_token(tmp_path: object) -> None:
    linear = packed("linear", (64, 32), 64 * 32 // 2, 64 * 2)
    embedding = packed("embedding", (100, 32), 100 * 32, 100 * 2)
    tied = packed("tied", (100, 32), 100 * 32, 100 * 2)
    norm = Tensor(
        name="norm", role="float", shape=(32,), source="float32", outcome="exact",
        values=stored(128),
    )  # fmt: skip
    cache = State(
        input="past", output="present", dtype="float16",
        shape=("batch_size", 3, "past_sequence_length", 64),
    )  # fmt: skip
    window = State(input="conv", output="conv2", dtype="float32", shape=("batch_size", 32, 2))
    apart = manifest(tmp_path, linear, embedding, norm, states=(cache, window))
    # Codes and scales as stored; one row of the embedding; the norm as it is.
    assert work_of(apart, "webgpu-q4").weight_bytes == 1024 + 128 + (32 + 2) + 128
    # A CPU reads scales of four bytes, but an embedding's.
    assert work_of(apart, "wasm-q4").weight_bytes == 1024 + 256 + (32 + 2) + 128
    assert work_of(apart, "webgpu-q4").state_bytes_per_position == 3 * 64 * 2
    assert work_of(apart, "webgpu-q4").state_bytes == 32 * 2 * 4
    # A head reads every row.
    both = manifest(tmp_path, linear, tied)
    assert work_of(both, "webgpu-q4").weight_bytes == 1024 + 128 + 3200 + 200


def test_gpu_time_or_why_there_is_none() -> None:
    alone = GpuPasses(passes=30, ms=3, full=False), 20.0
    whole = GpuPasses(passes=90, ms=9, full=False), 50.0
    assert gpu_time(2, alone, whole) == GpuTime(tokens=2, wall_ms=30, gpu_ms=6, passes=60)
    too_many = GpuPasses(passes=2048, ms=9, full=True), 50.0
    told = "2 tokens have more compute passes than the 2048 timed"
    assert gpu_time(2, alone, too_many) == told
    untimed = GpuPasses(passes=0, ms=0, full=False)
    assert gpu_time(2, (untimed, 20.0), (untimed, 50.0)) == "no compute pass was timed"


def target(**changes: object) -> TargetReport:
    runs = tuple(
        DecodeRun(prompt_tokens=10, visit=visit, warmup=2, ms=(99, 99, *[ms] * 6))
        for visit, ms in enumerate((19.0, 20.0, 21.0))
    )
    return wasm_target().model_copy(update={"decode": runs, **changes})


def test_share_of_what_a_plain_loop_moves() -> None:
    work = Work(weight_bytes=100_000_000, state_bytes_per_position=1_000_000, state_bytes=5_000_000)
    # 15 positions before the token in the middle: 10 of the prompt, and (2 + 8) / 2.
    busy = target(
        work=work,
        bandwidth=Bandwidth(
            kind="wasm-read", threads=1, bytes=10**9, clock="wall", warmup=1, ms=(500, 90, 100, 110)
        ),
    )
    assert METRICS["decode_bytes_per_second"].read(busy) == pytest.approx(120e6 / 0.020)
    found = figure(METRICS["bandwidth_share"], busy)
    # 10^9 bytes in 100 ms, a warm-up left out.
    assert found.value == pytest.approx(6e9 / 10e9)
    assert found.interval is not None
    assert found.interval.low < 0.6 < found.interval.high
    assert METRICS["bandwidth_share"].read(target(work=work)) is None
    assert METRICS["decode_bytes_per_second"].read(target()) is None


def calls(count: int) -> GpuCalls:
    return GpuCalls(
        dispatches=count, submits=2 * count, bind_groups=0, buffers=0, buffer_bytes=0, read_bytes=8
    )


def test_calls_of_the_tokens_after_the_first() -> None:
    whole = GenerateResult(tokens=(1,) * 5, text="", at_ms=(1, 2, 3, 4, 5), calls=calls(140))
    alone = GenerateResult(tokens=(1,), text="", at_ms=(1,), calls=calls(40))
    run = decode_run((1, 2, 3), 1, whole, alone=alone)
    assert run.calls == calls(100).model_copy(update={"read_bytes": 0})
    seen = target(decode=(run,))
    # Four tokens asked for a hundred.
    assert METRICS["dispatches_per_token"].read(seen) == 25
    assert METRICS["submits_per_token"].read(seen) == 50
    assert METRICS["dispatches_per_token"].read(target()) is None


def test_text_a_second() -> None:
    texts = (
        TextYield(language="en", tokens=40, characters=170, words=30),
        TextYield(language="ar", tokens=100, characters=120, words=20),
    )
    read = {name: METRICS[name].read(target(texts=texts)) for name in METRICS}
    # 50 tokens a second.
    assert read["english_words_per_second"] == pytest.approx(50 * 30 / 40)
    assert read["english_characters_per_second"] == pytest.approx(50 * 170 / 40)
    assert read["arabic_words_per_second"] == pytest.approx(50 * 20 / 100)
    assert read["arabic_characters_per_second"] == pytest.approx(50 * 120 / 100)
    assert METRICS["arabic_words_per_second"].read(target()) is None


def test_a_first_budget_limits_calls_and_leaves_speed_to_decode() -> None:
    whole = GenerateResult(tokens=(1,) * 5, text="", at_ms=(1, 2, 3, 4, 5), calls=calls(140))
    alone = GenerateResult(tokens=(1,), text="", at_ms=(1,), calls=calls(40))
    seen = target(
        decode=(decode_run((1, 2, 3), 1, whole, alone=alone),),
        texts=(TextYield(language="en", tokens=40, characters=170, words=30),),
    )
    report = sample_report().model_copy(update={"targets": {"wasm-q4": seen}})
    proposed = propose(report, 0.2).limits["wasm-q4"]
    assert proposed["dispatches_per_token"].max == 25
    assert "decode_tokens_per_second" in proposed
    assert "english_words_per_second" not in proposed
