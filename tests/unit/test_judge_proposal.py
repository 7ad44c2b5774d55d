"""The budget that ``gate --init`` proposes: kept by its report, and no looser than it says."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from browser_harness.judge import judge
from browser_harness.judge.proposal import _rounded, propose, to_toml
from manifests.budget import Budget, Limit
from tests.unit.reports import healthy_report, sample_report


@pytest.mark.parametrize("headroom", [0.0, 0.2, 3.0])
def test_its_own_report_keeps_it(headroom: float) -> None:
    report = healthy_report()
    budget = propose(report, headroom)
    outcomes = {check.bound: check.outcome for check in judge(report, budget).checks}
    assert outcomes == {"min": "pass", "max": "pass", "regression": "inconclusive"}


def test_headroom_by_hand() -> None:
    limits = propose(healthy_report(), 0.2).limits["wasm-q4"]
    # 131,214,336 bytes and a fifth: 157,457,203, rounded away from what was measured.
    assert limits["target_bytes"].max == 158_000_000
    # 5,210 ms, the median of three, and a fifth: 6,252.
    assert limits["load_cold_ms"] == Limit(max=6260, regression=0.05, level="warn")
    # 16 tokens' longest prompt took 648 ms of 64 tokens: 98.77 tok/s over 1.2 is 82.3.
    assert limits["prefill_tokens_per_second"] == Limit(min=82.3)
    assert limits["runtime_top1"] == Limit(min=1.0)
    assert limits["scored_positions"].min == 320
    assert limits["console_errors"].max == 0
    assert limits["runtime_kl_mean"].max == 4e-9
    assert limits["perplexity_ratio"].max == 1.01
    assert "gpu_bytes" not in limits


def test_what_cannot_be_judged_is_left_out() -> None:
    budget = propose(sample_report(), 0.2)
    assert set(budget.limits) == {"wasm-q4", "webgpu-q4"}
    software = budget.limits["webgpu-q4"]
    assert "gpu_bytes" in software
    assert not {"decode_tokens_per_second", "load_cold_ms"} & set(software)


def test_toml_is_the_budget() -> None:
    report = healthy_report()
    odd = {'od"d тест': report.targets["wasm-q4"], "wasm-q4": report.targets["wasm-q4"]}
    budget = propose(report.model_copy(update={"targets": odd}), 0.123)
    text = to_toml(budget, "first line\nsecond line")
    assert Budget.model_validate(tomllib.loads(text)) == budget
    assert text.startswith("# first line\n# second line\n")
    defaults = Budget(defaults={"load_cold_ms": Limit(max=1 / 3, statistic="p95")})
    assert Budget.model_validate(tomllib.loads(to_toml(defaults, "x"))) == defaults


@settings(max_examples=40, deadline=None)
@given(st.floats(1e-12, 1e12), st.booleans())
def test_rounding_goes_away_from_the_value_by_less_than_a_hundredth(value: float, up: bool) -> None:
    rounded = _rounded(value, up=up)
    assert abs(rounded - value) <= 0.0101 * value
    assert rounded >= value * 0.999999999 if up else rounded <= value * 1.000000001


def test_the_example_budget_still_loads() -> None:
    path = Path(__file__).parents[2] / "browser_harness/judge/example.toml"
    assert Budget.load(path).limits
