"""Order statistics of samples, with the warm-up left out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from manifests.report import DecodeRun, PrefillSample


@dataclass(frozen=True)
class Summary:
    """``count`` samples: their median, 5th and 95th percentile, in the samples' unit.

    Percentiles between two samples are interpolated linearly (Hyndman and Fan's
    type 7, NumPy's default).
    """

    count: int
    median: float
    p5: float
    p95: float


def summarise(samples: Sequence[float]) -> Summary | None:
    """Summarise ``samples``; ``None`` when there are none."""
    if not samples:
        return None
    p5, median, p95 = np.percentile(np.asarray(samples, dtype=np.float64), (5, 50, 95))
    return Summary(len(samples), float(median), float(p5), float(p95))


def judged(samples: Iterable[DecodeRun | PrefillSample]) -> tuple[float, ...]:
    """Milliseconds of every run, pooled, each run's warm-up left out."""
    return tuple(ms for sample in samples for ms in sample.ms[sample.warmup :])


def by_visit(samples: Iterable[DecodeRun | PrefillSample]) -> tuple[tuple[float, ...], ...]:
    """The same by fresh page, in the order in which the pages were opened."""
    visits: dict[int, tuple[float, ...]] = {}
    for sample in samples:
        visits[sample.visit] = visits.get(sample.visit, ()) + judged([sample])
    return tuple(visits[visit] for visit in sorted(visits))


def per_second(count: float, ms: float) -> float | None:
    """``count`` things in ``ms`` milliseconds, per second.

    ``None`` when the clock was too coarse to see the time pass.
    """
    return 1000 * count / ms if ms > 0 else None
