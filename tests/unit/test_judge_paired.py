"""Pages that took turns: ratios worked out by hand, and noise whose truth is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pytest
from rich.console import Console

from browser_harness.judge import default_budget, judge
from browser_harness.judge.metrics import METRICS
from browser_harness.judge.paired import DECODE, paired_comparison, time_ratio
from browser_harness.report import render, render_html, render_markdown
from browser_harness.report.glance import glance
from manifests.budget import Budget
from manifests.report import Beside, DecodeRun, Failure, PagePair, Report
from tests.unit.reports import healthy_report
from tests.unit.test_judge_baseline import with_target


def pair(
    old: Sequence[float], new: Sequence[float], first: Literal["old", "new"] = "old"
) -> PagePair:
    """One run a side; its first token is warm-up, and far off."""
    runs = [
        (DecodeRun(prompt_tokens=16, warmup=1, ms=(900.0, *map(float, ms))),) for ms in (old, new)
    ]
    return PagePair(first=first, old=runs[0], new=runs[1])


def beside(*pairs: PagePair) -> Beside:
    return Beside(bundle="older", seal="0" * 64, target="wasm-q4", noise=pairs[:2], pairs=pairs)


def report(*pairs: PagePair) -> Report:
    whole = healthy_report()
    target = whole.targets["wasm-q4"].model_copy(update={"beside": beside(*pairs)})
    return whole.model_copy(update={"targets": {"wasm-q4": target}})


#: The machine slows down threefold while the pairs are taken; the new pages take 10 % longer.
DRIFT = tuple(pair([10 * drift] * 3, [11 * drift] * 3) for drift in (1.0, 1.5, 2.0, 3.0))


def test_what_falls_on_both_pages_of_a_pair_cancels() -> None:
    found = time_ratio(DRIFT)
    assert found is not None
    assert found.value == pytest.approx(1.1)
    assert found.interval() == pytest.approx((1.1, 1.1))


def test_the_middle_of_a_page_is_what_counts() -> None:
    # A token that something held up is one token, not a slower page.
    found = time_ratio([pair([10, 10, 500], [10, 10, 10]), pair([20, 20, 20], [20, 20, 700])])
    assert found is not None
    assert found.value == pytest.approx(1)


def test_neighbouring_runs_are_compared_before_all_are() -> None:
    # The machine slows down threefold within the pair; the second old run was held up besides.
    old, new = (
        tuple(DecodeRun(prompt_tokens=16, warmup=0, ms=(ms,)) for ms in times)
        for times in ((10, 40, 20, 25, 30), (11, 16.5, 22, 27.5, 33))
    )
    pairs = [PagePair(first="old", old=old, new=new)] * 2
    found = time_ratio(pairs)
    assert found is not None
    assert found.value == pytest.approx(1.1)


def test_one_pair_or_a_blind_clock_tells_nothing() -> None:
    assert time_ratio(DRIFT[:1]) is None
    assert time_ratio([*DRIFT, pair([10], [0])]) is None
    assert paired_comparison(METRICS[DECODE], beside(DRIFT[0]), 0.05) is None


def test_the_interval_holds_the_truth_as_often_as_it_promises() -> None:
    random = np.random.default_rng(1)
    held = 0
    for _ in range(400):
        pairs = [pair([10.0], [10.0 * math.exp(random.normal(0, 0.03))]) for _ in range(6)]
        found = time_ratio(pairs)
        assert found is not None
        low, high = found.interval()
        held += low <= 1 <= high
    # 99 % of 400, less three standard errors of the count.
    assert held >= 390


@pytest.mark.parametrize("count", [6, 8])
def test_a_page_that_is_opened_first_may_be_slower(count: int) -> None:
    random = np.random.default_rng(2)
    held, widths = 0, []
    for _ in range(400):
        # The first page takes 9 % longer, whichever it is, and each pair is 1 % off besides.
        pairs = []
        for number in range(count):
            first: Literal["old", "new"] = "new" if number // 2 % 2 else "old"
            effect = 0.09 if first == "new" else -0.09
            time = 10.0 * math.exp(effect + random.normal(0, 0.01))
            pairs.append(pair([10.0], [time], first))
        found = time_ratio(pairs)
        assert found is not None
        low, high = found.interval()
        held += low <= 1 <= high
        widths.append(high / low - 1)
    assert held >= 390
    # 2 x t x 1 % over the root of the count, with 4 degrees of freedom t = 4.6, with 6 t = 3.7.
    assert np.median(widths) < 0.045


def test_two_pairs_that_began_differently_tell_nothing_of_noise() -> None:
    assert time_ratio([pair([10], [11]), pair([10], [11], "new")]) is None


def test_the_gate_believes_pages_in_turns_without_a_baseline() -> None:
    budget = Budget.model_validate({"limits": {"wasm-q4": {DECODE: {"regression": 0.05}}}})
    (check,) = judge(report(*DRIFT), budget).checks
    assert check.outcome == "fail"
    assert check.comparison is not None
    assert check.comparison.change == "regressed"
    assert check.comparison.ratio == pytest.approx(1 / 1.1)
    # The old pages' tokens were 10, 15, 20 and 30 ms: 17.5 in the middle.
    assert check.comparison.baseline == pytest.approx(1000 / 17.5)
    same = report(*(pair([10, 12], [12, 10]) for _ in range(4)))
    assert judge(same, budget).checks[0].outcome == "pass"
    assert default_budget(same).of("wasm-q4")[DECODE].regression == 0.05


def test_turns_that_failed_break_the_limit_that_they_were_for() -> None:
    whole = report(*DRIFT)
    failure = Failure(code="page-crashed", sentence="it crashed")
    changes = {"beside": None, "beside_failure": failure}
    broken = with_target(whole, **changes)
    for baseline in (None, with_target(whole, beside=None)):
        budget = default_budget(broken, against_baseline=baseline is not None)
        checks = {check.metric: check for check in judge(broken, budget, baseline).checks}
        assert checks[DECODE].outcome == "fail"
        assert checks[DECODE].reason == "the pages in turns failed: page-crashed: it crashed"
        # The report of another day does not stand in for them.
        assert checks[DECODE].comparison is None
    console = Console(width=240, force_terminal=False, color_system=None)
    with console.capture() as printed:
        console.print(render(broken))
    for told in (printed.get(), render_markdown(broken), render_html(broken)):
        assert "in turns" in told
        assert "it crashed" in told


def test_turns_say_nothing_of_the_slowest_tokens() -> None:
    limit = {"regression": 0.05, "statistic": "p95"}
    budget = Budget.model_validate({"limits": {"wasm-q4": {DECODE: limit}}})
    (check,) = judge(report(*DRIFT), budget).checks
    assert (check.outcome, check.comparison) == ("inconclusive", None)


def test_both_runs_are_in_the_table() -> None:
    rows = {row.label: row.cells for row in glance(report(*DRIFT)).rows}
    assert rows["Decode in turns (A B B A)"][0] == "× 0.909 (0.909–0.909)"
    assert rows["Decode, A/A in turns"][0] == "× 0.909 (0.909–0.909)"
