"""The gate: every limit of a budget against a report."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from browser_harness.judge.environment import check_comparable
from browser_harness.judge.figures import Figure, compare, figure
from browser_harness.judge.intervals import CONFIDENCE
from browser_harness.judge.limits import check_baseline, check_limits, nearest
from browser_harness.judge.metrics import METRICS, Metric
from browser_harness.judge.paired import DECODE, paired_comparison
from browser_harness.judge.units import Unit, show
from manifests.budget import Budget, Limit
from manifests.errors import (
    EXIT_GATE_FAILED,
    EXIT_INCONCLUSIVE,
    EXIT_OK,
)
from manifests.report import (
    Baseline,
    Check,
    Comparison,
    Failure,
    Report,
    TargetReport,
    Verdict,
)

Outcome = Literal["pass", "warn", "fail", "inconclusive"]
Bound = Literal["min", "max", "regression"]

_EXIT: MappingProxyType[str, int] = MappingProxyType(
    {"pass": EXIT_OK, "fail": EXIT_GATE_FAILED, "inconclusive": EXIT_INCONCLUSIVE}
)


def judge(report: Report, budget: Budget, baseline: Report | None = None) -> Verdict:
    """Judge every limit of ``budget``, in its order.

    - A target that is missing from the report or that failed fails each of its
      limits, whatever their level.
    - A missing figure breaks its limit, and so does a value that is not a number.
    - A speed or a load time on a software adapter is inconclusive.
    - A regression is judged by pages in turns where there are any, else against ``baseline``;
      without one, or where the samples do not tell, it is inconclusive.  Turns that were
      asked for and failed break it.
    - A broken limit is a ``fail``, or a ``warn`` where the budget says so.

    The verdict fails when a check does or a measured target failed; it is inconclusive
    when nothing failed, a limit of level ``error`` could not be judged and the
    budget's policy asks.

    Raises:
        UnknownMetric, WrongLimit, EmptyBudget: see :mod:`browser_harness.judge.limits`.
        NoRegressionLimit: there is a baseline, and no limit that needs one.
        NotComparable, NothingShared: the baseline was measured in another environment.
    """
    check_limits(budget)
    if baseline is not None:
        check_baseline(budget)
        check_comparable(baseline, report)
    checks: list[Check] = []
    unjudged = False
    for name in dict.fromkeys((*budget.limits, *report.targets)):
        for metric, limit in budget.of(name).items():
            if limit.level == "off":
                continue
            for check in _judge_limit(_Case(report, baseline, name, metric, limit)):
                checks.append(check)
                unjudged |= check.outcome == "inconclusive" and limit.level == "error"
    failed = tuple(name for name, target in report.targets.items() if target.failure is not None)
    outcome: Literal["pass", "fail", "inconclusive"] = "pass"
    if failed or any(check.outcome == "fail" for check in checks):
        outcome = "fail"
    elif unjudged and budget.gate.inconclusive == "fail":
        outcome = "inconclusive"
    return Verdict(
        outcome=outcome,
        confidence=CONFIDENCE if any(map(_has_interval, checks)) else None,
        baseline=None if baseline is None else _summary(baseline),
        failed_targets=failed,
        checks=tuple(checks),
    )


def _has_interval(check: Check) -> bool:
    compared = check.comparison is not None and check.comparison.interval is not None
    return check.interval is not None or compared


def _summary(baseline: Report) -> Baseline:
    return Baseline(
        created=baseline.created, bundle=baseline.bundle.name, seal=baseline.bundle.seal
    )


def exit_status(verdict: Verdict) -> int:
    """What the process exits with: 0 passed, 1 failed, 5 inconclusive."""
    return _EXIT[verdict.outcome]


@dataclass(frozen=True)
class _Case:
    """One limit on one target."""

    report: Report
    baseline: Report | None
    name: str
    metric: str
    limit: Limit

    @property
    def known(self) -> Metric:
        return METRICS[self.metric]

    @property
    def target(self) -> TargetReport | None:
        return self.report.targets.get(self.name)

    @property
    def broken(self) -> Outcome:
        return "warn" if self.limit.level == "warn" else "fail"


def _judge_limit(case: _Case) -> list[Check]:
    """One check per bound of the limit."""
    limit, target = case.limit, case.target
    found = Figure(None) if target is None else figure(case.known, target, limit.statistic)
    bounds: tuple[tuple[Bound, float | None], ...] = (
        ("min", limit.min),
        ("max", limit.max),
        ("regression", limit.regression),
    )
    checks = []
    for bound, bar in bounds:
        if bar is None:
            continue
        comparison = _compare(case) if bound == "regression" else None
        outcome, reason = _excused(case, found) or (
            _judge_regression(case, comparison)
            if bound == "regression"
            else _judge_bound(case, found, bound, bar)
        )
        checks.append(
            Check(
                target=case.name,
                metric=case.metric,
                unit=case.known.unit,
                statistic=limit.statistic,
                bound=bound,
                of="baseline" if bound == "regression" else limit.of,
                limit=bar,
                value=found.value,
                interval=found.interval,
                comparison=comparison,
                outcome=outcome,
                reason=reason,
            )
        )
    return checks


def _excused(case: _Case, found: Figure) -> tuple[Outcome, str] | None:
    """What is decided before any bound is looked at."""
    target = case.target
    if target is None:
        measured = ", ".join(case.report.targets) or "none"
        hint = nearest(case.name, case.report.targets)
        return "fail", f"the target was not measured (measured: {measured}) {hint}".rstrip()
    if target.failure is not None:
        return "fail", f"the target failed: {target.failure.code}: {target.failure.sentence}"
    if case.limit.of == "original" and _original(case) is None:
        return "inconclusive", "not judged: no original"
    if case.known.read(target) is None:
        return case.broken, "the figure is missing from the report"
    if target.software_adapter and case.known.speed_like:
        return "inconclusive", "a software adapter says nothing about speed on a user's machine"
    if found.value is None:
        return "inconclusive", "a lower bound needs samples from two fresh pages or more"
    return None


def _judge_bound(case: _Case, found: Figure, bound: Bound, bar: float) -> tuple[Outcome, str]:
    value, unit = found.value, case.known.unit
    assert value is not None
    if case.limit.of == "reference":
        torch = _torch(case)
        if torch is None:
            return "inconclusive", "the report holds no figure of PyTorch's to compare with"
        reason = f"{value / torch:.3g} × PyTorch's {show(torch, unit)}"
        kept = _keeps(value / torch, bound, bar)
        return ("pass" if kept else case.broken), reason
    if case.limit.of == "original":
        whole = _original(case)
        assert whole is not None
        reason = f"{value / whole:.3g} × the uncompressed model's {show(whole, unit)}"
        return ("pass" if _keeps(value / whole, bound, bar) else case.broken), reason
    if _keeps(value, bound, bar):
        return "pass", ""
    side = "under" if bound == "min" else "over"
    return case.broken, f"{show(abs(value - bar), unit)} {side} the limit"


def _keeps(value: float, bound: Bound, bar: float) -> bool:
    # Written so that a value that is not a number breaks the limit.
    return value >= bar if bound == "min" else value <= bar


def _torch(case: _Case) -> float | None:
    reference, target = case.report.reference, case.target
    if reference is None or target is None or case.known.reference is None:
        return None
    return case.known.reference(target, reference.speed) or None


def _original(case: _Case) -> float | None:
    if case.target is None or case.known.original is None:
        return None
    return case.known.original(case.target) or None


def _compare(case: _Case) -> Comparison | None:
    if _failed_turns(case) is not None:
        return None
    if case.limit.regression is not None and (found := _in_turns(case)) is not None:
        return found
    old = None if case.baseline is None else case.baseline.targets.get(case.name)
    if old is None or old.failure is not None or case.target is None:
        return None
    if case.target.failure is not None or case.limit.regression is None:
        return None
    return compare(
        case.known,
        old,
        case.target,
        allowed=case.limit.regression,
        statistic=case.limit.statistic,
    )


def _in_turns(case: _Case) -> Comparison | None:
    """What pages that took turns say, which goes before a report of another time.

    They tell of medians, and nothing of the slowest tokens.
    """
    beside = None if case.target is None else case.target.beside
    allowed = case.limit.regression
    if beside is None or allowed is None or case.metric != DECODE or case.limit.statistic == "p95":
        return None
    return paired_comparison(case.known, beside, allowed)


def _failed_turns(case: _Case) -> Failure | None:
    if case.target is None or case.metric != DECODE:
        return None
    return case.target.beside_failure


def _judge_regression(case: _Case, comparison: Comparison | None) -> tuple[Outcome, str]:
    # What was asked for and is missing breaks its limit, like any figure.
    if (failure := _failed_turns(case)) is not None:
        return case.broken, f"the pages in turns failed: {failure.code}: {failure.sentence}"
    if comparison is None and case.baseline is None:
        return "inconclusive", "no baseline was given"
    if comparison is None:
        return "inconclusive", "the baseline holds no such figure"
    reason = describe(comparison, case.known.unit)
    # A lower bound asks for proof: what may have regressed has.
    if comparison.change == "regressed" or (
        case.limit.statistic == "lower_bound" and _may_break(case, comparison)
    ):
        return case.broken, reason
    return ("inconclusive" if comparison.change == "inconclusive" else "pass"), reason


def _may_break(case: _Case, comparison: Comparison) -> bool:
    interval, allowed = comparison.interval, case.limit.regression
    if interval is None or allowed is None:
        return False
    ends = (interval.low, interval.high)
    return max(case.known.worsening(end) for end in ends) > math.log1p(allowed)


def describe(comparison: Comparison, unit: Unit) -> str:
    """A comparison in one line, e.g. ``regressed: 0.905 × 30.1 tok/s (0.88 to 0.93)``."""
    sentence = f"{comparison.change}: {comparison.ratio:.3f} × {show(comparison.baseline, unit)}"
    interval = comparison.interval
    if interval is None:
        return f"{sentence}, from samples of a single page"
    if interval.low == interval.high:
        return sentence
    return f"{sentence} ({interval.low:.3f} to {interval.high:.3f})"
