"""How well an order statistic of correlated samples is known.

Tokens of one page share its moment, its memory layout and its compiled code, so a token is
no independent sample; a visit (a fresh page) is.  Visits are resampled whole: the bootstrap
gives the standard error of a statistic's logarithm, and Student's t the interval around it,
with one degree of freedom per visit less one.  Percentile intervals from the few visits that
one has time for are too narrow (T. Hesterberg, "What Teachers Should Know About the
Bootstrap", The American Statistician 69, 2015, section 4); ``docs/measuring.md`` has figures.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

#: Of every interval.  A gate that runs on each commit cannot do with 95 %: one unchanged
#: bundle in forty would seem slower by chance.
CONFIDENCE = 0.99
RESAMPLES = 1000

Visits = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Estimate:
    """A quantile of positive samples, and the standard error of its logarithm."""

    value: float
    error: float
    freedom: int

    def interval(self) -> tuple[float, float]:
        """The quantile's confidence interval, in the samples' unit."""
        reach = _reach(self.error, self.freedom)
        return self.value * math.exp(-reach), self.value * math.exp(reach)

    def over(self, other: Estimate) -> tuple[float, float]:
        """The interval of ``self.value / other.value``; the two were sampled independently.

        Degrees of freedom are Welch's (B. L. Welch, Biometrika 34, 1947): where one side has few
        pages and most of the error, there are hardly more than its own.  Swapping the two
        inverts the interval exactly.
        """
        own, others = self.error**2, other.error**2
        freedom: float = self.freedom + other.freedom
        if own + others > 0:
            freedom = (own + others) ** 2 / (own**2 / self.freedom + others**2 / other.freedom)
        reach = _reach(math.sqrt(own + others), freedom)
        ratio = self.value / other.value
        return ratio * math.exp(-reach), ratio * math.exp(reach)


def _reach(error: float, freedom: float) -> float:
    return float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error


def estimate(visits: Visits, share: float) -> Estimate | None:
    """The quantile ``share`` (0.5 is the median) of all samples, and how well it is known.

    Args:
        visits: positive samples by fresh page; a page without any is left out.
        share: which quantile, interpolated linearly as NumPy's default.

    Returns:
        ``None`` with fewer than two pages, or when a clock saw no time pass.
    """
    kept = [np.asarray(visit, dtype=np.float64) for visit in visits if len(visit) > 0]
    if len(kept) < 2 or min(visit.min() for visit in kept) <= 0:
        return None
    count = len(kept)
    logs = np.log(_resampled(kept, share))
    # Resampling divides by the number of visits where an unbiased variance divides by one less.
    error = float(np.std(logs)) * math.sqrt(count / (count - 1))
    value = float(np.quantile(np.concatenate(kept), share))
    return Estimate(value, error, count - 1)


def _resampled(visits: Sequence[NDArray[np.float64]], share: float) -> NDArray[np.float64]:
    """The quantile of each of :data:`RESAMPLES` draws of whole visits, with replacement."""
    pooled = np.concatenate(visits)
    order = np.argsort(pooled)
    owner = np.repeat(np.arange(len(visits)), [len(visit) for visit in visits])[order]
    # Seeded by the samples: the same report has the same interval wherever it is judged.
    random = np.random.default_rng(zlib.crc32(pooled.tobytes()))
    copies = random.multinomial(len(visits), [1 / len(visits)] * len(visits), RESAMPLES)
    # reached[r, i]: samples of draw r among the i + 1 smallest of the pool.
    reached = np.cumsum(copies[:, owner], axis=1)
    place = share * (reached[:, -1] - 1)
    below = np.floor(place)
    above = np.minimum(below + 1, reached[:, -1] - 1)
    low, high = (
        pooled[order][(reached <= rank[:, np.newaxis]).sum(axis=1)] for rank in (below, above)
    )
    return np.asarray(low + (place - below) * (high - low))


def halves(visits: Visits) -> tuple[Visits, Visits]:
    """The visits as A B B A A B B A ...: a drift that is steady falls on both halves alike."""
    return (
        [visit for i, visit in enumerate(visits) if i % 4 in (0, 3)],
        [visit for i, visit in enumerate(visits) if i % 4 in (1, 2)],
    )
