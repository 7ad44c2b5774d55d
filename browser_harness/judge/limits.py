"""What a budget may ask, and what is refused before hours are spent on measuring."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path

from browser_harness.judge.figures import figure
from browser_harness.judge.metrics import METRICS
from browser_harness.judge.paired import DECODE
from manifests.budget import Budget, Limit
from manifests.errors import EXIT_USAGE, TabwrightError
from manifests.report import Report, TargetReport

#: How much worse a figure may be where a baseline is given and no budget.
ALLOWED_REGRESSION = 0.05


DEFAULT_BUDGET = Path(__file__).with_name("default.toml")


def nearest(name: str, known: Iterable[str]) -> str:
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
            nearest(metric, METRICS) or f"choose among {', '.join(METRICS)}",
        )


class UnknownBudgetTarget(TabwrightError):
    """The budget limits a target that does not exist."""

    code = "unknown-target"
    exit_status = EXIT_USAGE

    def __init__(self, target: str, known: Iterable[str]) -> None:
        names = sorted(known)
        super().__init__(
            f"the budget limits the target '{target}', and there is no such target",
            nearest(target, names) or f"choose among {', '.join(names)}",
        )


class WrongLimit(TabwrightError):
    """The budget asks something of a metric that it does not have."""

    code = "wrong-limit"
    exit_status = EXIT_USAGE

    def __init__(self, metric: str, target: str, what: str, next_step: str) -> None:
        super().__init__(f"the budget limits '{metric}' for {target} {what}", next_step)


class NoRegressionLimit(TabwrightError):
    """A baseline was given to a budget that compares nothing."""

    code = "no-regression-limit"
    exit_status = EXIT_USAGE

    def __init__(self) -> None:
        super().__init__(
            "a baseline was given, and the budget holds no 'regression' limit",
            "add one, e.g. decode_tokens_per_second = { regression = 0.05 }, or leave out "
            f"the budget to allow {100 * ALLOWED_REGRESSION:.0f} % everywhere",
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
        WrongLimit: a statistic of an exact figure, or PyTorch's figure where it has none.
        EmptyBudget: no limit is on.
    """
    known = frozenset(targets)
    for target in budget.limits:
        if target not in known:
            raise UnknownBudgetTarget(target, known)
    check_limits(budget)


def check_limits(budget: Budget) -> None:
    """As :func:`check_budget`, for a budget whose targets need not exist."""
    tables = [("every target", budget.defaults), *budget.limits.items()]
    every = [(name, *each) for name, limits in tables for each in limits.items()]
    for target, metric, limit in every:
        if metric not in METRICS:
            raise UnknownMetric(metric, target)
        known = METRICS[metric]
        if limit.statistic != "median" and not known.sampled:
            step = "leave the statistic out: the figure is one exact number"
            raise WrongLimit(metric, target, f"by its {limit.statistic}", step)
        if limit.of == "reference" and known.reference is None:
            names = ", ".join(name for name, each in METRICS.items() if each.reference)
            raise WrongLimit(metric, target, "by PyTorch's", f"PyTorch has {names}")
        if limit.of == "original" and known.original is None:
            names = ", ".join(name for name, each in METRICS.items() if each.original)
            step = f"the original has {names}"
            raise WrongLimit(metric, target, "by the uncompressed model's", step)
    if all(limit.level == "off" for _, _, limit in every):
        raise EmptyBudget


def default_budget(report: Report, *, against_baseline: bool = False) -> Budget:
    """The budget where none is given: :data:`DEFAULT_BUDGET`, for what ``report`` can hold.

    Its limits on other targets are left out, and without a reference those on what only a
    comparison with PyTorch can tell.  No sweep that was asked for may fail.  What was measured
    twice may be worse by :data:`ALLOWED_REGRESSION`: decode speed where pages took turns, and
    against a baseline every size, load and speed of which ``report`` holds more than one page.
    """
    whole = Budget.load(DEFAULT_BUDGET)

    def kept(limits: Mapping[str, Limit]) -> dict[str, Limit]:
        return {
            name: limit
            for name, limit in limits.items()
            if report.reference is not None or limit.of != "value" or METRICS[name].kind != "parity"
        }

    tables = {}
    for name, target in report.targets.items():
        own = kept(whole.limits.get(name, {}))
        if target.sweeps is not None:
            own["failed_sweeps"] = Limit(max=0)
        for metric in _compared(target, against_baseline=against_baseline):
            absolute = own.get(metric, whole.defaults.get(metric))
            own[metric] = (
                Limit(regression=ALLOWED_REGRESSION)
                if absolute is None
                else absolute.model_copy(update={"regression": ALLOWED_REGRESSION})
            )
        tables[name] = own
    return whole.model_copy(update={"defaults": kept(whole.defaults), "limits": tables})


def _compared(target: TargetReport, *, against_baseline: bool) -> Iterator[str]:
    if target.beside is not None or target.beside_failure is not None:
        yield DECODE
    for name, known in METRICS.items():
        if against_baseline and known.kind in ("size", "load", "speed"):
            found = figure(known, target)
            if found.interval is not None or (found.value is not None and not known.sampled):
                yield name


def check_baseline(budget: Budget) -> None:
    """Refuse a budget that would leave a baseline unused.

    Raises:
        NoRegressionLimit: no limit looks at it.
    """
    every = (
        limit for table in (budget.defaults, *budget.limits.values()) for limit in table.values()
    )
    if all(limit.regression is None or limit.level == "off" for limit in every):
        raise NoRegressionLimit
