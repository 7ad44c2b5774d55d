"""The gate: what passes, what fails, what cannot be judged."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import browser_harness.judge
from browser_harness.judge.gate import exit_status, judge
from browser_harness.judge.limits import (
    EmptyBudget,
    UnknownBudgetTarget,
    UnknownMetric,
    check_budget,
)
from manifests.budget import Budget
from manifests.report import Check, Report, Verdict
from targets import TARGETS
from tests.unit.reports import agreement, healthy_report, parity, sample_report

EXAMPLE = Path(browser_harness.judge.__file__).with_name("example.toml")
Limits = dict[str, dict[str, object]]


def budget(limits: dict[str, Limits], inconclusive: str = "pass") -> Budget:
    return Budget.model_validate({"gate": {"inconclusive": inconclusive}, "limits": limits})


def judge_one(target: str, metric: str, **limit: object) -> tuple[Verdict, Check]:
    report = sample_report() if target == "webgpu-q8" else healthy_report()
    verdict = judge(report, budget({target: {metric: limit}}))
    return verdict, verdict.checks[0]


@pytest.mark.parametrize(
    ("limit", "outcome"),
    [
        ({"max": 131_214_336}, "pass"),
        ({"max": 131_214_335}, "fail"),
        ({"max": 131_214_335, "level": "warn"}, "warn"),
        ({"min": 131_214_336}, "pass"),
        ({"min": 131_214_337}, "fail"),
    ],
)
def test_the_bound_itself_is_allowed(limit: dict[str, object], outcome: str) -> None:
    verdict, check = judge_one("wasm-q4", "target_bytes", **limit)
    assert check.outcome == outcome
    assert check.value == 131_214_336
    assert bool(check.reason) == (outcome != "pass")
    assert verdict.outcome == ("fail" if outcome == "fail" else "pass")
    assert exit_status(verdict) == (1 if outcome == "fail" else 0)


def test_a_limit_with_both_bounds_is_two_checks() -> None:
    verdict, _ = judge_one("wasm-q4", "scored_positions", min=300, max=310)
    assert [(check.bound, check.outcome) for check in verdict.checks] == [
        ("min", "pass"),
        ("max", "fail"),
    ]


@pytest.mark.parametrize(("level", "outcome"), [("error", "fail"), ("warn", "warn")])
def test_a_missing_figure_breaks_its_limit(level: str, outcome: str) -> None:
    _, check = judge_one("wasm-q4", "gpu_bytes", max=1e12, level=level)
    assert check.value is None
    assert check.outcome == outcome
    assert "missing" in check.reason


@pytest.mark.parametrize("bound", ["min", "max"])
def test_a_value_that_is_no_number_breaks_its_limit(bound: str) -> None:
    report = healthy_report()
    wrong = report.targets["wasm-q4"].model_copy(
        update={"parity": parity(agreement(kl_mean=math.nan))}
    )
    report = report.model_copy(update={"targets": {"wasm-q4": wrong}})
    verdict = judge(report, budget({"wasm-q4": {"runtime_kl_mean": {bound: 0}}}))
    assert verdict.outcome == "fail"


@pytest.mark.parametrize("level", ["error", "warn"])
def test_a_failed_target_fails_each_limit_and_says_why(level: str) -> None:
    verdict, check = judge_one("webgpu-q8", "target_bytes", max=1e12, level=level)
    assert verdict.outcome == check.outcome == "fail"
    assert check.value == 172_000_000
    assert "page-crashed: the page crashed" in check.reason


def test_a_failed_target_fails_the_verdict_without_any_limit() -> None:
    only = budget({"wasm-q4": {"target_bytes": {"max": 1e12}}})
    verdict = judge(sample_report(), only)
    assert [check.outcome for check in verdict.checks] == ["pass"]
    assert (verdict.outcome, verdict.failed_targets) == ("fail", ("webgpu-q8",))
    assert exit_status(verdict) == 1
    assert judge(healthy_report(), only).outcome == "pass"


@pytest.mark.parametrize(("level", "outcome"), [("error", "fail"), ("warn", "warn")])
def test_a_speed_that_was_not_measured_is_not_excused_by_a_software_adapter(
    level: str, outcome: str
) -> None:
    report = healthy_report()
    assert report.targets["webgpu-q4"].software_adapter
    target = report.targets["webgpu-q4"].model_copy(update={"decode": ()})
    report = report.model_copy(update={"targets": {"webgpu-q4": target}})
    limits: Limits = {"decode_tokens_per_second": {"min": 1, "level": level}}
    (check,) = judge(report, budget({"webgpu-q4": limits})).checks
    assert check.outcome == outcome
    assert "missing" in check.reason


@pytest.mark.parametrize("metric", ["target_bytes", "decode_tokens_per_second"])
def test_a_target_that_was_not_measured_fails(metric: str) -> None:
    verdict, check = judge_one("webgpu-q4f16", metric, min=0, level="warn")
    assert verdict.outcome == check.outcome == "fail"
    assert "not measured" in check.reason
    assert "did you mean 'webgpu-q4'?" in check.reason


@pytest.mark.parametrize("bounds", [{"min": 0}, {"min": 1e9}, {"max": 0}])
@pytest.mark.parametrize("metric", ["decode_tokens_per_second", "load_cold_ms"])
def test_a_software_adapter_neither_passes_nor_fails_a_speed(
    metric: str, bounds: dict[str, object]
) -> None:
    _, check = judge_one("webgpu-q4", metric, **bounds)
    assert check.outcome == "inconclusive"
    assert check.value is not None
    assert "software adapter" in check.reason


def test_a_software_adapter_is_judged_on_its_answers_and_memory() -> None:
    assert judge_one("webgpu-q4", "runtime_top1", min=1)[1].outcome == "fail"
    assert judge_one("webgpu-q4", "gpu_bytes", max=1e9)[1].outcome == "pass"


@pytest.mark.parametrize(
    ("policy", "level", "other", "outcome", "status"),
    [
        ("pass", "error", {}, "pass", 0),
        ("fail", "error", {}, "inconclusive", 5),
        ("fail", "warn", {}, "pass", 0),
        ("fail", "error", {"target_bytes": {"max": 1}}, "fail", 1),
        ("fail", "error", {"target_bytes": {"max": 1, "level": "warn"}}, "inconclusive", 5),
    ],
)
def test_inconclusive_only_when_nothing_failed_and_the_budget_asks(
    policy: str, level: str, other: Limits, outcome: str, status: int
) -> None:
    limits: Limits = {"decode_tokens_per_second": {"min": 1, "level": level}, **other}
    verdict = judge(healthy_report(), budget({"webgpu-q4": limits}, policy))
    assert verdict.outcome == outcome
    assert exit_status(verdict) == status


def test_a_limit_switched_off_is_not_judged() -> None:
    limits: Limits = {"target_bytes": {"max": 1, "level": "off"}, "console_errors": {"max": 0}}
    verdict = judge(sample_report(), budget({"wasm-q4": limits}))
    assert [check.metric for check in verdict.checks] == ["console_errors"]


def test_an_unknown_metric_is_refused_with_the_nearest() -> None:
    wrong = budget({"wasm-q4": {"decode_tokens_per_secnd": {"min": 1, "level": "off"}}})
    with pytest.raises(UnknownMetric, match="decode_tokens_per_secnd") as caught:
        judge(sample_report(), wrong)
    assert caught.value.next_step == "did you mean 'decode_tokens_per_second'?"
    assert (caught.value.code, caught.value.exit_status) == ("unknown-metric", 2)


def test_an_unknown_target_is_refused_before_anything_is_measured() -> None:
    with pytest.raises(UnknownBudgetTarget, match="wasmq4") as caught:
        check_budget(budget({"wasmq4": {"target_bytes": {"max": 1}}}), TARGETS)
    assert caught.value.next_step == "did you mean 'wasm-q4'?"
    assert (caught.value.code, caught.value.exit_status) == ("unknown-target", 2)
    with pytest.raises(UnknownMetric):
        check_budget(budget({"wasm-q4": {"zzz": {"max": 1}}}), TARGETS)


@pytest.mark.parametrize("limits", [{}, {"wasm-q4": {"target_bytes": {"max": 1, "level": "off"}}}])
def test_a_budget_that_limits_nothing_cannot_be_passed(limits: dict[str, Limits]) -> None:
    with pytest.raises(EmptyBudget) as caught:
        judge(sample_report(), budget(limits))
    assert caught.value.exit_status == 2


def test_the_example_budget_judges_the_demo() -> None:
    example = Budget.load(EXAMPLE)
    check_budget(example, TARGETS)
    verdict = judge(sample_report(), example)
    outcomes = {(check.target, check.metric): check.outcome for check in verdict.checks}
    assert outcomes["wasm-q4", "decode_tokens_per_second"] == "pass"
    assert outcomes["webgpu-q4", "decode_tokens_per_second"] == "inconclusive"
    assert outcomes["webgpu-q4", "runtime_top1"] == "fail"


def test_a_verdict_survives_the_report_file(tmp_path: Path) -> None:
    report = sample_report()
    report = report.model_copy(update={"verdict": judge(report, Budget.load(EXAMPLE))})
    path = tmp_path / "report.json"
    path.write_text(report.to_json(), "utf-8")
    assert Report.load(path) == report


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_a_report_is_strict_json_whatever_was_measured(tmp_path: Path) -> None:
    report = healthy_report()
    broken = agreement(kl_mean=math.inf, perplexity=math.nan, max_abs_logit=-math.inf)
    target = report.targets["wasm-q4"].model_copy(update={"parity": parity(broken)})
    report = report.model_copy(update={"targets": {"wasm-q4": target}})
    limits: dict[str, Limits] = {"wasm-q4": {"runtime_kl_mean": {"max": 1}}}
    report = report.model_copy(update={"verdict": judge(report, budget(limits))})
    text = report.to_json()
    document = json.loads(text, parse_constant=refuse)
    runtime = document["targets"]["wasm-q4"]["parity"]["runtime"]
    assert (runtime["kl_mean"], runtime["perplexity"]) == ("Infinity", "NaN")
    assert document["verdict"]["checks"][0]["value"] == "Infinity"
    read = Report.parse(text, tmp_path)
    assert read.verdict is not None
    assert read.verdict.checks[0].value == math.inf
    assert read.to_json() == text
