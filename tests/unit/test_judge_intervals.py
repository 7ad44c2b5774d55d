"""Intervals against SciPy, NumPy and values worked out by hand."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from browser_harness.judge.intervals import CONFIDENCE, Estimate, _resampled, estimate, halves


def lognormal(seed: int, pages: int, tokens: int, spread: float) -> list[list[float]]:
    """Pages whose common factor varies by ``spread``, tokens by a tenth of it."""
    random = np.random.default_rng(seed)
    pages_at = 30 * np.exp(random.normal(0, spread, pages))
    return [list(at * np.exp(random.normal(0, spread / 10, tokens))) for at in pages_at]


def test_the_standard_error_is_scipys_bootstraps() -> None:
    visits = lognormal(1, 24, 1, 0.05)
    samples = np.array([visit[0] for visit in visits])
    expected = stats.bootstrap(
        (np.log(samples),), np.median, n_resamples=4000, method="percentile", rng=0
    ).standard_error
    found = estimate(visits, 0.5)
    assert found is not None
    assert found.freedom == 23
    # Each bootstrap has a sampling error of its own, of about 1/sqrt(2 * resamples).
    assert found.error == pytest.approx(expected * math.sqrt(24 / 23), rel=0.08)


def test_each_draw_is_the_quantile_of_whole_pages() -> None:
    random = np.random.default_rng(7)
    visits = [random.lognormal(3, 0.2, size) for size in (3, 5, 4)]
    # Every draw of 3 pages out of 3, with replacement: 10 multisets, so 10 possible values.
    possible = {
        round(float(np.quantile(np.concatenate([visits[i], visits[j], visits[k]]), 0.95)), 9)
        for i in range(3)
        for j in range(i, 3)
        for k in range(j, 3)
    }
    assert {round(float(value), 9) for value in _resampled(visits, 0.95)} == possible


def test_the_interval_is_students() -> None:
    low, high = Estimate(value=20.0, error=0.01, freedom=9).interval()
    t = 3.2498355  # the two-sided 99 % quantile at 9 degrees of freedom, from printed tables
    assert CONFIDENCE == 0.99
    assert (low, high) == pytest.approx((20 * math.exp(-0.01 * t), 20 * math.exp(0.01 * t)))


@pytest.mark.parametrize("counts", [(4, 20), (6, 6)])
def test_a_ratio_is_known_as_welch_has_it(counts: tuple[int, int]) -> None:
    logs = [np.random.default_rng(count).normal(3, 0.04, count) for count in counts]
    old, new = (
        Estimate(math.exp(each.mean()), float(stats.sem(each)), len(each) - 1) for each in logs
    )
    expected = stats.ttest_ind(logs[1], logs[0], equal_var=False).confidence_interval(CONFIDENCE)
    low, high = new.over(old)
    assert (low, high) == pytest.approx((math.exp(expected.low), math.exp(expected.high)))
    assert old.over(new) == pytest.approx((1 / high, 1 / low))


def test_what_does_not_vary_is_known() -> None:
    assert Estimate(3.0, 0.0, 4).over(Estimate(2.0, 0.0, 5)) == (1.5, 1.5)


def test_tokens_of_one_page_are_no_independent_samples() -> None:
    few_long = estimate(lognormal(3, 6, 200, 0.05), 0.5)
    few_short = estimate(lognormal(3, 6, 20, 0.05), 0.5)
    assert few_long is not None
    assert few_short is not None
    # Ten times the tokens from the same pages know nothing more about other pages.
    assert few_long.error > 0.5 * few_short.error


@pytest.mark.parametrize("visits", [[], [[1.0, 2.0]], [[1.0], []], [[1.0], [0.0]]])
def test_too_little_is_no_estimate(visits: list[list[float]]) -> None:
    assert estimate(visits, 0.5) is None


def test_a_steady_drift_falls_on_both_halves_alike() -> None:
    visits = [[100.0 + i] for i in range(8)]
    first, second = halves(visits)
    assert [visit[0] for visit in first] == [100, 103, 104, 107]
    assert statistics.mean(v[0] for v in first) == statistics.mean(v[0] for v in second)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.lists(st.floats(1, 100), min_size=1, max_size=5),
        min_size=2,
        max_size=6,
    ),
    st.floats(1.1, 10),
)
def test_the_unit_does_not_matter(visits: list[list[float]], factor: float) -> None:
    found = estimate(visits, 0.5)
    scaled = estimate([[ms * factor for ms in visit] for visit in visits], 0.5)
    assert found is not None
    assert scaled is not None
    assert scaled.value == pytest.approx(found.value * factor)
    assert found.interval()[0] <= found.value <= found.interval()[1]


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    # 300 experiments of 8 pages; at 99 % one expects 3 misses, and 12 are 1 in 20,000.
    misses = 0
    for seed in range(300):
        found = estimate(lognormal(seed, 8, 9, 0.03), 0.5)
        assert found is not None
        low, high = found.interval()
        misses += not low <= 30 <= high
    assert misses < 12


def test_the_ratio_of_few_pages_to_many_holds_the_truth_as_often_as_it_says() -> None:
    # As above; pages stop at 4 where a machine is quiet and go on to 20 where it is not.
    misses = 0
    for seed in range(300):
        few, many = (
            estimate(lognormal(2 * seed + which, pages, 9, 0.03), 0.5)
            for which, pages in enumerate((6, 20))
        )
        assert few is not None
        assert many is not None
        low, high = many.over(few)
        misses += not low <= 1 <= high
    assert misses < 12
