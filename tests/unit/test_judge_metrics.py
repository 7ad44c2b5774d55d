"""Each metric against a value worked out by hand or by the standard library."""

from __future__ import annotations

import statistics
import tomllib
from pathlib import Path

import pytest

import browser_harness.judge.docs
from browser_harness.judge.metrics import METRICS
from browser_harness.judge.statistics import judged, per_second, summarise
from browser_harness.judge.units import Unit, show, show_round
from manifests.budget import Budget
from manifests.report import DecodeRun, PrefillSample, TargetReport
from tests.unit.reports import MIB, wasm_target, webgpu_target

ROOT = Path(__file__).parents[2]


def test_percentiles_are_the_standard_librarys_inclusive_ones() -> None:
    samples = [float(7 * i % 41) for i in range(41)] + [100.0, 3.5]
    found = summarise(samples)
    cuts = statistics.quantiles(samples, n=20, method="inclusive")
    assert found is not None
    assert found.count == 43
    assert found.median == pytest.approx(statistics.median(samples))
    assert (found.p5, found.p95) == pytest.approx((cuts[0], cuts[-1]))


def test_no_samples_have_no_summary() -> None:
    assert summarise([]) is None


def test_the_warm_up_of_every_run_is_left_out() -> None:
    runs = (
        DecodeRun(prompt_tokens=4, warmup=1, ms=(90, 10, 20)),
        DecodeRun(prompt_tokens=4, warmup=2, ms=(80, 70, 30)),
        DecodeRun(prompt_tokens=4, warmup=3, ms=(60,)),
    )
    assert judged(runs) == (10, 20, 30)


def test_a_clock_that_saw_no_time_gives_no_speed() -> None:
    assert per_second(1, 0) is None
    assert per_second(16, 250) == 64


SMALL = TargetReport(
    execution_provider="wasm",
    threads=1,
    target_bytes=1000,
    prefill=(
        PrefillSample(prompt_tokens=8, warmup=0, ms=(1, 1)),
        PrefillSample(prompt_tokens=32, warmup=1, ms=(900, 400, 500, 300)),
    ),
    decode=(DecodeRun(prompt_tokens=8, warmup=1, ms=(500, *(20.0,) * 90, *(50.0,) * 10)),),
    console=("one", "two"),
)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("target_bytes", 1000),
        ("time_to_first_token_ms", 400),
        ("prefill_tokens_per_second", 80),
        ("decode_tokens_per_second", 50),
        ("console_errors", 2),
        ("load_cold_ms", None),
        ("load_warm_ms", None),
        ("wire_bytes", None),
        ("peak_memory_bytes", None),
        ("gpu_bytes", None),
        ("runtime_top1", None),
        ("token_ids_equal", None),
        ("scored_positions", None),
    ],
)
def test_figures_of_a_small_target(metric: str, value: float | None) -> None:
    assert METRICS[metric].read(SMALL) == (None if value is None else pytest.approx(value))


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("load_cold_ms", 5210),
        ("load_warm_ms", 2310),
        ("wire_bytes", 131_004_000),
        # Renderer and GPU process in one look: the peak is at the cold load's end.
        ("peak_memory_bytes", (1180 + 96) * MIB),
        ("rest_memory_bytes", round(1180 * 0.9 * MIB) + round(96 * (0.3 + 0.7 * 0.9) * MIB)),
        ("wasm_heap_bytes", 836 * MIB),
        ("js_heap_bytes", 44 * MIB),
        ("gpu_bytes", None),
        ("runtime_top1", 1),
        ("runtime_max_abs_logit", 3.1e-4),
        ("runtime_kl_mean", 2e-9),
        ("perplexity_ratio", 1),
        ("scored_positions", 320),
        ("export_top1", 0.9967),
        ("export_max_abs_logit", 0.175),
        ("export_kl_mean", 3.2e-5),
        ("export_perplexity_ratio", 25.43 / 25.41),
        ("token_ids_equal", 5 / 6),
        ("greedy_equal", 2 / 3),
        ("console_errors", 0),
    ],
)
def test_figures_of_a_full_target(metric: str, value: float | None) -> None:
    found = METRICS[metric].read(wasm_target())
    assert found == (None if value is None else pytest.approx(value))


def test_two_processes_that_peak_apart_do_not_add_up() -> None:
    target = webgpu_target()
    memory = target.memory
    assert memory is not None
    first, last = memory.timeline[0], memory.timeline[-1]
    timeline = (
        first.model_copy(update={"renderer_pss": 900, "gpu_process_pss": 100}),
        last.model_copy(update={"renderer_pss": 200, "gpu_process_pss": 700}),
    )
    apart = memory.model_copy(update={"timeline": timeline})
    found = METRICS["peak_memory_bytes"].read(target.model_copy(update={"memory": apart}))
    assert found == 1000


def test_only_time_is_unjudgeable_on_a_software_adapter() -> None:
    assert {name for name, metric in METRICS.items() if metric.speed_like} == {
        "load_cold_ms",
        "load_warm_ms",
        "time_to_first_token_ms",
        "prefill_tokens_per_second",
        "decode_tokens_per_second",
        "english_characters_per_second",
        "english_words_per_second",
        "arabic_characters_per_second",
        "arabic_words_per_second",
        "decode_bytes_per_second",
        "bandwidth_share",
        "gpu_time_share",
        "context_growth",
        "context_steps",
    }


def test_only_samples_have_a_statistic() -> None:
    whole = {"gpu_time_share", "context_growth", "context_steps"}
    timed = {name for name, metric in METRICS.items() if metric.speed_like}
    assert {name for name, metric in METRICS.items() if metric.sampled} == timed - whole


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (131_214_336, "bytes", "131.2 MB"),
        (1_338_000_000, "bytes", "1.338 GB"),
        (0, "bytes", "0 B"),
        (999, "bytes", "999 B"),
        (5210, "ms", "5.21 s"),
        (412.4, "ms", "412 ms"),
        (0, "ms", "0 ms"),
        (0.0999, "tokens/s", "0.0999 tok/s"),
        (1, "share", "1.0000"),
        (0.99999, "share", ">0.9999"),
        (0.9967, "share", "0.9967"),
        (3.1e-9, "nats", "3.1e-9 nats"),
        (1234, "positions", "1,234"),
        (float("nan"), "logits", "not a number"),
        (float("inf"), "nats", "∞"),
    ],
)
def test_values_are_written_for_people(value: float, unit: Unit, written: str) -> None:
    assert show(value, unit) == written


@pytest.mark.parametrize(
    ("value", "unit", "written"),
    [
        (140e6, "bytes", "140 MB"),
        (1.2e9, "bytes", "1.2 GB"),
        (30000, "ms", "30 s"),
        (1, "share", "1"),
        (0.98, "share", "0.98"),
        (1.05, "ratio", "1.05"),
        (100, "tokens/s", "100 tok/s"),
        (100, "positions", "100"),
    ],
)
def test_limits_are_written_without_idle_zeros(value: float, unit: Unit, written: str) -> None:
    assert show_round(value, unit) == written


def test_the_page_on_budgets_lists_every_metric_as_it_is() -> None:
    page = (ROOT / "docs/budget.md").read_text("utf-8")
    assert browser_harness.judge.docs.update(page) == page, (
        "run: python -m browser_harness.judge.docs docs/budget.md"
    )
    assert all(f"`{name}`" in page for name in METRICS)


def test_the_example_in_the_page_is_a_budget() -> None:
    page = (ROOT / "docs/budget.md").read_text("utf-8")
    example = page.split("```toml\n")[1].split("```")[0]
    budget = Budget.model_validate(tomllib.loads(example))
    assert all(metric in METRICS for limits in budget.limits.values() for metric in limits)
