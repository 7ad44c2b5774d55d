"""Ratios of pages that took turns.

A pair of pages is the sample, and its value the median of what neighbouring runs differ by: they
are a fraction of a second apart, so whatever the machine does for longer falls on both, and what
it does to one run is one difference among many.

Which page begins may matter, and each side does equally often.  So the pairs of either kind are
centred on their own mean before they are resampled; the bootstrap's standard error gives
Student's interval around the middle of the two means, as in
:mod:`browser_harness.judge.intervals`.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np

from browser_harness.judge.figures import change
from browser_harness.judge.intervals import RESAMPLES, Estimate
from browser_harness.judge.metrics import Metric
from browser_harness.judge.statistics import judged, per_second
from manifests.report import Beside, Comparison, Interval, PagePair

#: The figure that pages in turns compare.
DECODE = "decode_tokens_per_second"


def time_ratio(pairs: Sequence[PagePair]) -> Estimate | None:
    """The time of a token in the new pages over that in the old ones.

    Returns:
        ``None`` without two pairs that began alike, or where a clock saw no time pass.
    """
    logs = np.array([_log_ratio(pair) for pair in pairs])
    first = np.array([pair.first for pair in pairs])
    kinds = [first == side for side in np.unique(first)]
    freedom = len(logs) - len(kinds)
    if freedom < 1 or not np.isfinite(logs).all():
        return None
    means = [float(logs[which].mean()) for which in kinds]
    for which, mean in zip(kinds, means, strict=True):
        logs[which] -= mean
    # Seeded by the samples: the same report has the same interval wherever it is judged.
    random = np.random.default_rng(zlib.crc32(logs.tobytes()))
    draws = random.choice(logs, (RESAMPLES, len(logs))).mean(axis=1)
    # Where one kind has fewer pairs, the middle of the means is known less well than a mean of all.
    uneven = sum(len(logs) / which.sum() for which in kinds) / len(kinds) ** 2
    error = float(np.std(draws)) * math.sqrt(uneven * len(logs) / freedom)
    return Estimate(math.exp(math.fsum(means) / len(means)), error, freedom)


def _log_ratio(pair: PagePair) -> float:
    """Of runs that only warmed up nothing is told; the others come as neighbours do, in twos."""
    old, new = (
        np.array([_log_median(ms) for run in runs if (ms := judged([run]))])
        for runs in (pair.old, pair.new)
    )
    both = min(len(old), len(new))
    return float(np.median(new[:both] - old[:both])) if both else math.nan


def _log_median(ms: Sequence[float]) -> float:
    return float(np.median(np.log(ms))) if min(ms) > 0 else math.nan


def paired_comparison(metric: Metric, beside: Beside, allowed: float) -> Comparison | None:
    """Decode speed beside the old one's; ``None`` where the pairs do not tell.

    Args:
        metric: decode speed, for which way is worse.
        beside: the pairs.
        allowed: the share by which the speed may be lower.
    """
    found = time_ratio(beside.pairs)
    ms = [each for pair in beside.pairs for each in judged(pair.old)]
    baseline = per_second(1, float(np.median(ms))) if ms else None
    if found is None or baseline is None:
        return None
    # A speed is worth the inverse of a time, and so are the ends of its interval.
    low, high = found.interval()
    ends = (1 / high, 1 / low)
    return Comparison(
        baseline=baseline,
        ratio=1 / found.value,
        interval=Interval(low=ends[0], high=ends[1]),
        change=change(metric, 1 / found.value, ends, allowed),
    )
