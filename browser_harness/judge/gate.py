"""The gate: every limit of a budget against a report."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from types import MappingProxyType
from typing import Literal

from browser_harness.judge.metrics import METRICS, Metric
from browser_harness.judge.units import Unit, show
from manifests.budget import Budget, Limit
from manifests.errors import (
    EXIT_GATE_FAILED,
    EXIT_INCONCLUSIVE,
    EXIT_OK,
    EXIT_USAGE,
    TabwrightError,
)
from manifests.report import Check, Report, TargetReport, Verdict

Outcome = Literal["pass", "warn", "fail", "inconclusive"]
Bound = Literal["min", "max"]

_EXIT: MappingProxyType[str, int] = MappingProxyType(
    {"pass": EXIT_OK, "fail": EXIT_GATE_FAILED, "inconclusive": EXIT_INCONCLUSIVE}
)


def _nearest(name: str, known: Iterable[str]) -> str:
    """The name of ``known`` most like ``name``, as a question; empty when none is near."""
    near = get_close_matches(name, list(known), n=1)
    return f"did you mean '{near[0]}'?" if near else ""


class UnknownMetric(TabwrightError):
    """The budget limits something that is not measured."""

    code = "unknown-metric"
    exit_status = EXIT_USAGE

    def __init__(self, metric: str, target: str) -> None:
        super().__init__(
            f"the budget limits '{metric}' for {target}, and there is no such metric",
            _nearest(metric, METRICS) or f"choose among {', '.join(METRICS)}",
        )


class UnknownBudgetTarget(TabwrightError):
    """The budget limits a target that does not exist."""

    code = "unknown-target"
    exit_status = EXIT_USAGE

    def __init__(self, target: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(
            f"the budget limits the target '{target}', and there is no such target",
            _nearest(target, names) or f"choose among {', '.join(names)}",
        )


class EmptyBudget(TabwrightError):
    """The budget limits nothing, so that passing it would say nothing."""

    code = "empty-budget"
    exit_status = EXIT_USAGE

    def __init__(self) -> None:
        super().__init__(
            "the budget holds no limit that is switched on",
            "add a table [limits.TARGET] with at least one limit",
        )


def check_budget(budget: Budget, targets: Iterable[str]) -> None:
    """Refuse a budget that cannot be judged, before hours are spent on measuring.

    Args:
        budget: the limits.
        targets: every target there is, measured or not.

    Raises:
        UnknownBudgetTarget: a limit names none of ``targets``; the nearest is told.
        UnknownMetric: a limit names no metric; the nearest is told.
        EmptyBudget: no limit is on.
    """
    known = frozenset(targets)
    for target in budget.limits:
        if target not in known:
            raise UnknownBudgetTarget(target, known)
    _check_metrics(budget)


def _check_metrics(budget: Budget) -> None:
    for target, limits in budget.limits.items():
        for metric in limits:
            if metric not in METRICS:
                raise UnknownMetric(metric, target)
    every = (limit for limits in budget.limits.values() for limit in limits.values())
    if all(limit.level == "off" for limit in every):
        raise EmptyBudget


def judge(report: Report, budget: Budget) -> Verdict:
    """Judge every limit of ``budget``, in its order.

    - A target that is missing from the report or that failed fails each of its
      limits, whatever their level.
    - A missing figure breaks its limit, and so does a value that is not a number.
    - A speed or a load time on a software adapter is inconclusive.
    - A broken limit is a ``fail``, or a ``warn`` where the budget says so.

    The verdict fails when a check does or a measured target failed; it is inconclusive
    when nothing failed, a limit of level ``error`` could not be judged and the
    budget's policy asks.

    Raises:
        UnknownMetric: a limit names no metric; the nearest is told.
        EmptyBudget: no limit is on.
    """
    _check_metrics(budget)
    checks: list[Check] = []
    unjudged = False
    for name, limits in budget.limits.items():
        for metric, limit in limits.items():
            if limit.level == "off":
                continue
            for check in _judge_limit(report, name, metric, limit):
                checks.append(check)
                unjudged |= check.outcome == "inconclusive" and limit.level == "error"
    failed = tuple(name for name, target in report.targets.items() if target.failure is not None)
    if failed or any(check.outcome == "fail" for check in checks):
        return Verdict(outcome="fail", failed_targets=failed, checks=tuple(checks))
    if unjudged and budget.gate.inconclusive == "fail":
        return Verdict(outcome="inconclusive", checks=tuple(checks))
    return Verdict(outcome="pass", checks=tuple(checks))


def exit_status(verdict: Verdict) -> int:
    """What the process exits with: 0 passed, 1 failed, 5 inconclusive."""
    return _EXIT[verdict.outcome]


def _judge_limit(report: Report, name: str, metric: str, limit: Limit) -> list[Check]:
    """One check per bound of ``limit``."""
    known = METRICS[metric]
    target = report.targets.get(name)
    value = None if target is None else known.read(target)
    bounds: tuple[tuple[Bound, float | None], ...] = (("min", limit.min), ("max", limit.max))
    checks = []
    for bound, bar in bounds:
        if bar is None:
            continue
        if target is None:
            outcome, reason = _missing_target(report, name)
        else:
            outcome, reason = _judge_target(target, known, limit, value, bound, bar)
        checks.append(
            Check(
                target=name,
                metric=metric,
                unit=known.unit,
                bound=bound,
                limit=bar,
                value=value,
                outcome=outcome,
                reason=reason,
            )
        )
    return checks


def _missing_target(report: Report, name: str) -> tuple[Outcome, str]:
    measured = ", ".join(report.targets) or "none"
    hint = _nearest(name, report.targets)
    return "fail", f"the target was not measured (measured: {measured}) {hint}".rstrip()


def _breach(value: float, bound: Bound, bar: float, unit: Unit) -> str:
    """How ``value`` breaks its bound; empty when it keeps it."""
    # Written so that a value that is not a number breaks the limit.
    kept = value >= bar if bound == "min" else value <= bar
    side = "under" if bound == "min" else "over"
    return "" if kept else f"{show(abs(value - bar), unit)} {side} the limit"


def _judge_target(
    target: TargetReport,
    metric: Metric,
    limit: Limit,
    value: float | None,
    bound: Bound,
    bar: float,
) -> tuple[Outcome, str]:
    """The outcome of one bound on a target of the report, and why."""
    broken: Outcome = "warn" if limit.level == "warn" else "fail"
    if target.failure is not None:
        return "fail", f"the target failed: {target.failure.code}: {target.failure.sentence}"
    if value is None:
        return broken, "the figure is missing from the report"
    if target.software_adapter and metric.speed_like:
        return "inconclusive", "a software adapter says nothing about speed on a user's machine"
    breach = _breach(value, bound, bar, metric.unit)
    return (broken, breach) if breach else ("pass", "")
