"""A target's figure by a statistic, and against another report's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import Literal

import numpy as np

from browser_harness.judge.intervals import Estimate, estimate, halves
from browser_harness.judge.metrics import Metric
from browser_harness.judge.samples import Samples
from manifests.budget import Statistic
from manifests.report import Comparison, Interval, TargetReport

Change = Literal["regressed", "improved", "same", "inconclusive"]

#: Which quantile of the times a statistic looks at.
_SHARE: Mapping[Statistic, float] = MappingProxyType(
    {"median": 0.5, "p95": 0.95, "lower_bound": 0.5}
)


@dataclass(frozen=True)
class Figure:
    """A value in the metric's unit.

    ``interval`` is ``None`` where the value is exact, and where too few fresh pages were
    sampled to know it.
    """

    value: float | None
    interval: Interval | None = None


def figure(metric: Metric, target: TargetReport, statistic: Statistic = "median") -> Figure:
    """The figure of ``target``.

    ``p95`` is what 95 % of the samples keep: a time that they stay below, a speed that they
    reach.  ``lower_bound`` is the worse end of the median's interval: what the target is
    worth at least; without an interval there is no such value.
    """
    samples = metric.source(target)
    if not isinstance(samples, Samples):
        return Figure(samples)
    found = estimate(samples.visits, _SHARE[statistic])
    interval = None if found is None else _in_unit(found.interval(), samples)
    if statistic == "lower_bound":
        if interval is None:
            return Figure(None)
        return Figure(interval.high if metric.better == "lower" else interval.low, interval)
    ms = _quantile(samples, _SHARE[statistic])
    return Figure(None if ms is None else samples.figure(ms), interval)


def _quantile(samples: Samples, share: float) -> float | None:
    pooled = list(chain.from_iterable(samples.visits))
    return float(np.quantile(pooled, share)) if pooled else None


def _in_unit(ends: tuple[float, float], samples: Samples) -> Interval | None:
    figures = [samples.figure(ms) for ms in ends]
    low, high = sorted(each for each in figures if each is not None)
    return Interval(low=low, high=high)


def compare(
    metric: Metric,
    old: TargetReport,
    new: TargetReport,
    *,
    allowed: float,
    statistic: Statistic = "median",
) -> Comparison | None:
    """``new`` against ``old``, which must have been measured in the same environment.

    Args:
        metric: which figure.
        old: the baseline.
        new: what is judged.
        allowed: the share by which a figure may be worse.
        statistic: ``lower_bound`` compares medians, as ``median`` does.

    Returns:
        ``None`` when either figure is missing.
    """
    seen, sees = metric.source(old), metric.source(new)
    if not isinstance(seen, Samples) or not isinstance(sees, Samples):
        if isinstance(seen, Samples) or isinstance(sees, Samples) or seen is None or sees is None:
            return None
        ratio = _ratio(sees, seen)
        return _comparison(metric, seen, ratio, (ratio, ratio), allowed)
    share = _SHARE[statistic]
    before, after = _quantile(seen, share), _quantile(sees, share)
    baseline = None if before is None else seen.figure(before)
    value = None if after is None else sees.figure(after)
    if baseline is None or value is None:
        return None
    return _comparison(
        metric, baseline, _ratio(value, baseline), _ratio_ends(seen, sees, share), allowed
    )


def _ratio(value: float, baseline: float) -> float:
    if baseline == 0:
        return 1.0 if value == 0 else math.inf
    return value / baseline


def _ratio_ends(old: Samples, new: Samples, share: float) -> tuple[float, float] | None:
    if old == new:
        return 1.0, 1.0  # the very same measurement: there is no second one to differ by chance
    before, after = estimate(old.visits, share), estimate(new.visits, share)
    if before is None or after is None:
        return None
    low, high = after.over(before)
    return (low, high) if new.count is None else (1 / high, 1 / low)


def _comparison(
    metric: Metric,
    baseline: float,
    ratio: float,
    ends: tuple[float, float] | None,
    allowed: float,
) -> Comparison:
    return Comparison(
        baseline=baseline,
        ratio=ratio,
        interval=None if ends is None else Interval(low=ends[0], high=ends[1]),
        change=change(metric, ratio, ends, allowed),
    )


def change(
    metric: Metric, ratio: float, ends: tuple[float, float] | None, allowed: float
) -> Change:
    """What ``ratio`` (new over old) says, given the interval ``ends`` around it.

    Regressed: worse by more than ``allowed``, and the whole interval is on the worse side.
    Improved: the same, mirrored.  Same: the whole interval is within what is allowed, both
    ways.  Anything else needs more samples.  Allowances are symmetric in the logarithm, so
    that swapping the two reports swaps regressed and improved and nothing else.
    """
    if ends is None:
        return "inconclusive"
    worse, margin = metric.worsening(ratio), math.log1p(allowed)
    least, most = sorted(metric.worsening(end) for end in ends)
    if worse > margin and least > 0:
        return "regressed"
    if worse < -margin and most < 0:
        return "improved"
    return "same" if -margin <= least and most <= margin else "inconclusive"


@dataclass(frozen=True)
class Noise:
    """The A/A run: the ratio of a target's own two halves, and the interval around it.

    The halves hold the fresh pages in the order A B B A.  Nothing differs between them, so
    whatever the ratio shows is the machine's.
    """

    ratio: float
    interval: tuple[float, float]


def noise(metric: Metric, target: TargetReport) -> Noise | None:
    """The noise floor of a sampled figure; ``None`` with fewer than four fresh pages."""
    samples = metric.source(target)
    if not isinstance(samples, Samples):
        return None
    first, second = (estimate(half, 0.5) for half in halves(samples.visits))
    if first is None or second is None:
        return None
    return Noise(second.value / first.value, second.over(first))


def precision(found: Estimate | None) -> float:
    """How far the far end of the interval is from the value, as a share; infinite unknown."""
    return math.inf if found is None else found.interval()[1] / found.value - 1
