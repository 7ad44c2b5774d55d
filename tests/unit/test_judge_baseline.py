"""The gate with a baseline: who may be compared, and what comes of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from browser_harness.judge import default_budget, judge
from browser_harness.judge.environment import NotComparable, NothingShared, differences
from browser_harness.judge.limits import NoRegressionLimit, WrongLimit, check_budget
from manifests.budget import Budget, GatePolicy
from manifests.report import Check, DecodeRun, PrefillSample, Report, TargetReport
from tests.unit.reports import healthy_report, sample_report, webgpu_target

Change = Callable[[Report], Report]


def decodes(ms: float, *, pages: int = 10, spread: float = 0.01, seed: int = 0) -> Report:
    """The healthy report with one target, whose tokens take about ``ms``."""
    random = np.random.default_rng(seed)
    runs = tuple(
        DecodeRun(
            prompt_tokens=64,
            visit=page,
            warmup=0,
            ms=tuple(ms * np.exp(random.normal(0, spread, 20))),
        )
        for page in range(pages)
    )
    report = healthy_report()
    target = report.targets["wasm-q4"].model_copy(update={"decode": runs})
    return report.model_copy(update={"targets": {"wasm-q4": target}})


def with_target(report: Report, **changes: object) -> Report:
    target = report.targets["wasm-q4"].model_copy(update=changes)
    return report.model_copy(update={"targets": {"wasm-q4": target}})


def regression(**fields: object) -> Budget:
    limit = {"regression": 0.05, **fields}
    return Budget.model_validate({"limits": {"wasm-q4": {"decode_tokens_per_second": limit}}})


def judged(new: Report, old: Report | None, budget: Budget | None = None) -> Check:
    (check,) = judge(new, budget or regression(), old).checks
    return check


@pytest.mark.parametrize(
    ("ms", "change", "outcome"),
    [(33.5, "regressed", "fail"), (30.2, "same", "pass"), (27.0, "improved", "pass")],
)
def test_a_change_and_what_the_gate_makes_of_it(ms: float, change: str, outcome: str) -> None:
    check = judged(decodes(ms, seed=1), decodes(30))
    assert check.comparison is not None
    assert (check.comparison.change, check.outcome) == (change, outcome)
    assert (check.bound, check.of, check.limit) == ("regression", "baseline", 0.05)
    assert check.reason.startswith(f"{change}: ")
    assert judged(decodes(ms, seed=1), decodes(30), regression(level="warn")).outcome == (
        "warn" if outcome == "fail" else outcome
    )


def test_noise_is_inconclusive_not_a_regression() -> None:
    check = judged(decodes(33, spread=0.5, pages=4, seed=2), decodes(30, spread=0.5, pages=4))
    assert check.outcome == "inconclusive"
    # Who asks for proof gets none.
    strict = regression(statistic="lower_bound")
    assert judged(decodes(30, spread=0.5, pages=4, seed=2), decodes(30), strict).outcome == "fail"
    assert judged(decodes(30, seed=2), decodes(30), strict).outcome == "pass"


def test_the_verdict_tells_its_baseline() -> None:
    old = decodes(30)
    verdict = judge(decodes(30, seed=1), regression(), old)
    assert verdict.baseline is not None
    assert (verdict.baseline.seal, verdict.confidence) == (old.bundle.seal, 0.99)
    assert judge(decodes(30), regression(), None).baseline is None


def test_without_a_baseline_a_regression_is_not_judged() -> None:
    check = judged(decodes(30), None)
    assert (check.outcome, check.reason) == ("inconclusive", "no baseline was given")
    strict = regression().model_copy(update={"gate": GatePolicy(inconclusive="fail")})
    assert judge(decodes(30), strict).outcome == "inconclusive"


def test_a_baseline_without_the_figure_is_inconclusive() -> None:
    old = with_target(decodes(30), decode=())
    failed = sample_report().targets["webgpu-q8"].failure
    # Without any decode run the prompts differ, too: what differs is refused first.
    with pytest.raises(NotComparable, match="prompts"):
        judged(decodes(30), old)
    check = judged(decodes(30), with_target(decodes(30), failure=failed))
    assert (check.outcome, check.reason) == ("inconclusive", "the baseline holds no such figure")


def test_a_software_adapter_is_no_measure_of_change() -> None:
    slow = webgpu_target()
    pages = tuple(slow.decode[0].model_copy(update={"visit": visit}) for visit in range(4))
    report = healthy_report().model_copy(
        update={"targets": {"webgpu-q4": slow.model_copy(update={"decode": pages})}}
    )
    budget = Budget.model_validate(
        {"limits": {"webgpu-q4": {"decode_tokens_per_second": {"regression": 0.05}}}}
    )
    (check,) = judge(report, budget, report).checks
    assert check.outcome == "inconclusive"
    assert "software adapter" in check.reason


def machine(**changes: object) -> Change:
    def apply(report: Report) -> Report:
        return report.model_copy(update={"machine": report.machine.model_copy(update=changes)})

    return apply


def browser(version: str) -> Change:
    def apply(report: Report) -> Report:
        assert report.browser is not None
        other = report.browser.model_copy(update={"version": version})
        return report.model_copy(update={"browser": other})

    return apply


def prompted(digest: str) -> Change:
    def apply(report: Report) -> Report:
        runs = report.targets["wasm-q4"].decode
        return with_target(
            report, decode=tuple(run.model_copy(update={"prompt": digest}) for run in runs)
        )

    return apply


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (machine(cpu="another"), "machine"),
        (machine(cores=64), "machine"),
        (browser("157.0.1.1"), "browser"),
        (lambda report: with_target(report, threads=4), "threads"),
        (lambda report: with_target(report, adapter=webgpu_target().adapter), "adapter"),
        (prompted("a" * 64), "prompts"),
        (lambda report: with_target(report, prefill=()), "prompts"),
    ],
)
def test_other_environments_are_refused_by_what_differs(change: Change, what: str) -> None:
    with pytest.raises(NotComparable, match=what) as caught:
        judged(change(decodes(30)), decodes(30))
    assert (caught.value.code, caught.value.exit_status) == ("not-comparable", 3)


@pytest.mark.parametrize(
    "change",
    [
        browser("156.9.9.9"),
        browser("Chromium 156.0.1.2"),
        machine(memory_bytes=1),
        machine(system="Debian GNU/Linux 14"),
        lambda report: with_target(report, onnxruntime_web="1.31.0"),
        lambda report: with_target(report, notes=("another",)),
    ],
)
def test_what_does_not_matter_is_compared(change: Change) -> None:
    assert judged(change(decodes(30)), decodes(30)).outcome == "pass"


def test_every_difference_is_told_with_both_sides() -> None:
    other = with_target(machine(cores=8)(decodes(30)), threads=4)
    found = differences(decodes(30), other)
    assert {(each.what, each.target) for each in found} == {("machine", ""), ("threads", "")}
    assert "AMD EPYC 7B13, 2 cores" in str(NotComparable(found))
    both = healthy_report()
    slow = both.targets["webgpu-q4"].model_copy(update={"threads": 3})
    changed = both.model_copy(update={"targets": {**both.targets, "webgpu-q4": slow}})
    assert [str(each) for each in differences(both, changed)] == ["webgpu-q4's threads (1, now 3)"]


def test_reports_of_different_targets_share_nothing() -> None:
    old = healthy_report()
    renamed = old.model_copy(update={"targets": {"other": old.targets["wasm-q4"]}})
    with pytest.raises(NothingShared, match="other"):
        judged(decodes(30), renamed)


def test_a_baseline_that_no_limit_looks_at_is_refused() -> None:
    budget = Budget.model_validate({"limits": {"wasm-q4": {"target_bytes": {"max": 1e12}}}})
    with pytest.raises(NoRegressionLimit):
        judge(decodes(30), budget, decodes(30))


def test_a_comparison_without_a_budget_looks_at_sizes_and_sampled_times() -> None:
    alone = default_budget(decodes(30)).of("wasm-q4")
    limits = default_budget(decodes(30), against_baseline=True).of("wasm-q4")
    compared = {name: limit for name, limit in limits.items() if limit.regression is not None}
    assert set(compared) == {
        "target_bytes", "wire_bytes", "load_cold_ms", "load_warm_ms", "decode_tokens_per_second",
    }  # fmt: skip
    assert {limit.regression for limit in compared.values()} == {0.05}
    # Answers are judged as they are without a baseline.
    assert alone.items() <= limits.items()
    assert "runtime_top1" in alone


def test_pytorch_is_a_measure_too() -> None:
    # The sample's reference decodes at about 58 ms a token, the browser at 30.
    def against(**bounds: object) -> Check:
        limit = {"of": "reference", **bounds}
        return judged(
            decodes(30),
            None,
            Budget.model_validate({"limits": {"wasm-q4": {"decode_tokens_per_second": limit}}}),
        )

    kept, broken = against(min=1.8), against(min=2.0)
    assert (kept.outcome, broken.outcome) == ("pass", "fail")
    assert (kept.of, kept.limit) == ("reference", 1.8)
    assert "× PyTorch's 17.2 tok/s" in broken.reason
    bare = decodes(30).model_copy(update={"reference": None})
    budget = Budget.model_validate(
        {"limits": {"wasm-q4": {"decode_tokens_per_second": {"min": 1, "of": "reference"}}}}
    )
    assert judged(bare, None, budget).outcome == "inconclusive"


def test_the_longest_prompt_is_compared_with_pytorchs_of_that_length() -> None:
    target = TargetReport(
        execution_provider="wasm",
        threads=1,
        target_bytes=1,
        prefill=(PrefillSample(prompt_tokens=64, warmup=0, ms=(610.0,)),),
    )
    report = healthy_report().model_copy(update={"targets": {"wasm-q4": target}})
    limit = {"max": 2, "of": "reference"}
    budget = Budget.model_validate({"limits": {"wasm-q4": {"time_to_first_token_ms": limit}}})
    check = judged(report, None, budget)
    # 610 ms over the median of 302, 310 and 305.
    assert (check.outcome, check.reason) == ("pass", "2 × PyTorch's 305 ms")


@pytest.mark.parametrize(
    ("metric", "limit", "told"),
    [
        ("target_bytes", {"max": 1, "statistic": "p95"}, "exact"),
        ("runtime_top1", {"min": 1, "of": "reference"}, "decode_tokens_per_second"),
    ],
)
def test_what_a_metric_does_not_have_is_refused(
    metric: str, limit: dict[str, object], told: str
) -> None:
    budget = Budget.model_validate({"limits": {"wasm-q4": {metric: limit}}})
    with pytest.raises(WrongLimit) as caught:
        check_budget(budget, {"wasm-q4"})
    assert told in caught.value.next_step
    assert caught.value.exit_status == 2


def test_defaults_are_judged_for_every_target_of_the_report() -> None:
    budget = Budget.model_validate(
        {
            "defaults": {"target_bytes": {"max": 1}},
            "limits": {"wasm-q4": {"target_bytes": {"level": "off"}}},
        }
    )
    checks = judge(healthy_report(), budget).checks
    assert [(check.target, check.outcome) for check in checks] == [("webgpu-q4", "fail")]
