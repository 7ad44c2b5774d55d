"""Statistics of a target, and what two reports make of each other."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from browser_harness.judge.figures import Change, change, compare, figure, noise
from browser_harness.judge.metrics import METRICS, Metric
from manifests.report import DecodeRun, PrefillSample, TargetReport
from tests.unit.reports import load_sample

DECODE = METRICS["decode_tokens_per_second"]
FIRST = METRICS["time_to_first_token_ms"]
SIZE = METRICS["target_bytes"]
MIRROR: dict[Change, Change] = {
    "regressed": "improved",
    "improved": "regressed",
    "same": "same",
    "inconclusive": "inconclusive",
}

Pages = list[list[float]]
pages = st.lists(st.lists(st.floats(10, 60), min_size=1, max_size=6), min_size=2, max_size=8)


def target(visits: Pages, *, size: int = 1000) -> TargetReport:
    """A target whose pages took ``visits`` milliseconds, to decode and to the first token."""
    return TargetReport(
        execution_provider="wasm",
        threads=1,
        target_bytes=size,
        prefill=tuple(
            PrefillSample(prompt_tokens=8, visit=i, warmup=1, ms=(999, *ms))
            for i, ms in enumerate(visits)
        ),
        decode=tuple(
            DecodeRun(prompt_tokens=8, visit=i, warmup=1, ms=(999, *ms))
            for i, ms in enumerate(visits)
        ),
        warm=tuple(load_sample(ms[0], fetched=0, first_token=1) for ms in visits),
    )


def steady(ms: float, pages: int = 8, spread: float = 0.005, seed: int = 0) -> TargetReport:
    random = np.random.default_rng(seed)
    return target([list(ms * np.exp(random.normal(0, spread, 5))) for _ in range(pages)])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([DECODE, FIRST, METRICS["load_warm_ms"]]), pages, pages)
def test_swapping_the_reports_mirrors_the_verdict(known: Metric, old: Pages, new: Pages) -> None:
    there = compare(known, target(old), target(new), allowed=0.05)
    back = compare(known, target(new), target(old), allowed=0.05)
    assert there is not None
    assert back is not None
    assert back.change == MIRROR[there.change]
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert there.interval is not None
    assert back.interval is not None
    assert back.interval.low == pytest.approx(1 / there.interval.high)


@settings(max_examples=40, deadline=None)
@given(pages)
def test_a_report_is_the_same_as_itself(visits: Pages) -> None:
    for metric in (DECODE, FIRST, SIZE):
        found = compare(metric, target(visits), target(visits), allowed=0.05)
        assert found is not None
        assert (found.ratio, found.change) == (1, "same")


@settings(max_examples=40, deadline=None)
@given(
    st.floats(0.5, 2),
    st.floats(0, 0.3),
    st.floats(0.001, 0.5),
    st.sampled_from(["lower", "higher"]),
)
def test_a_verdict_never_goes_against_its_interval(
    ratio: float, reach: float, allowed: float, better: str
) -> None:
    metric = replace(FIRST, better="lower" if better == "lower" else "higher")
    ends = (ratio * math.exp(-reach), ratio * math.exp(reach))
    worse = ratio if better == "lower" else 1 / ratio
    verdict = change(metric, ratio, ends, allowed)
    if ends[0] <= 1 <= ends[1]:
        assert verdict in ("same", "inconclusive")
    if verdict == "regressed":
        assert worse > 1 + allowed
    if verdict == "same":
        assert 1 / (1 + allowed) * 0.999999 <= worse <= (1 + allowed) * 1.000001


@pytest.mark.parametrize(
    ("ratio", "ends", "expected"),
    [
        (1.10, (1.06, 1.14), "regressed"),
        (1.10, (1.01, 1.19), "regressed"),
        (1.10, (0.99, 1.22), "inconclusive"),
        (1.04, (1.01, 1.07), "inconclusive"),
        (1.03, (1.02, 1.04), "same"),
        (1.00, (0.97, 1.03), "same"),
        (1.00, (0.94, 1.06), "inconclusive"),
        (0.90, (0.85, 0.95), "improved"),
        (0.90, (0.80, 1.01), "inconclusive"),
        (1.50, None, "inconclusive"),
    ],
)
def test_verdicts_by_hand_at_five_percent(
    ratio: float, ends: tuple[float, float] | None, expected: Change
) -> None:
    assert change(FIRST, ratio, ends, 0.05) == expected


def test_a_slower_decode_is_a_regression_and_a_faster_one_is_not() -> None:
    slower = compare(DECODE, steady(30), steady(33, seed=1), allowed=0.05)
    faster = compare(DECODE, steady(33), steady(30, seed=1), allowed=0.05)
    assert slower is not None
    assert faster is not None
    assert (slower.change, faster.change) == ("regressed", "improved")
    assert slower.ratio == pytest.approx(30 / 33, rel=0.01)
    assert slower.baseline == pytest.approx(1000 / 30, rel=0.01)


def test_an_exact_figure_needs_no_samples() -> None:
    def sizes(old: int, new: int) -> str:
        found = compare(SIZE, target([], size=old), target([], size=new), allowed=0.05)
        assert found is not None
        assert found.interval is not None
        assert found.interval.low == found.interval.high == found.ratio
        return found.change

    assert [sizes(100, new) for new in (94, 96, 100, 104, 106)] == [
        "improved", "same", "same", "same", "regressed",
    ]  # fmt: skip
    assert (sizes(0, 0), sizes(0, 1), sizes(1, 0)) == ("same", "regressed", "improved")


def test_one_page_says_nothing_of_the_next() -> None:
    found = compare(DECODE, target([[30.0] * 50]), target([[60.0] * 50]), allowed=0.05)
    assert found is not None
    assert found.interval is None
    assert (found.ratio, found.change) == (0.5, "inconclusive")


def test_what_is_missing_is_not_compared() -> None:
    assert compare(DECODE, target([]), steady(30), allowed=0.05) is None
    assert compare(METRICS["gpu_bytes"], steady(30), steady(30), allowed=0.05) is None


def test_statistics_by_hand() -> None:
    two = target([[10.0, 20.0, 30.0], [10.0, 20.0, 30.0]])
    # Type 7 over 10 10 20 20 30 30: the 95th percentile is at 4.75, within the thirties.
    assert figure(FIRST, two, "p95").value == pytest.approx(30)
    assert figure(DECODE, two, "p95").value == pytest.approx(1000 / 30)
    assert figure(DECODE, two).value == pytest.approx(50)
    noisy = steady(30, spread=0.05)
    for metric in (FIRST, DECODE):
        found, bound = figure(metric, noisy), figure(metric, noisy, "lower_bound")
        assert found.value is not None
        assert found.interval is not None
        assert found.interval.low < found.value < found.interval.high
        worse = found.interval.high if metric is FIRST else found.interval.low
        assert bound.value == worse
    assert figure(FIRST, target([[1.0]]), "lower_bound").value is None
    assert figure(SIZE, two).interval is None


def test_the_noise_floor_is_the_reports_two_halves() -> None:
    quiet = noise(DECODE, steady(30))
    assert quiet is not None
    assert quiet.ratio == pytest.approx(1, abs=0.01)
    assert quiet.interval[0] < 1 < quiet.interval[1]
    loud = noise(DECODE, steady(30, spread=0.2))
    assert loud is not None
    assert loud.interval[1] > quiet.interval[1]
    assert noise(DECODE, target([[30.0]] * 3)) is None
    assert noise(SIZE, steady(30)) is None
