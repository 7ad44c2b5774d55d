"""Does a series of times grow, jump, or pause?

A decode loop that does as much at every position is flat but for attention, which reads a
little more each time.  One that copies its cache grows faster; one that changes its kernel at
some length has a step; one that moves its cache to a larger buffer pauses once.  The three
are told apart here, each with what it takes to be believed in noise.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from browser_harness.judge.intervals import CONFIDENCE
from manifests.sweeps import ContextSweep

#: Neighbouring samples whose median is one point: single slow tokens do not count, and what
#: two points have in common is less than what two tokens have.
BLOCK = 16
#: Fewer points than this tell nothing.
_LEAST = 8
#: A step or growth smaller than this share is not told, however certain it is.
SMALLEST = 0.05
#: Critical value at 1 % of the largest Wald statistic over all places of one change but the
#: outer 15 % (D. W. K. Andrews, Econometrica 61, 1993, table I, p = 1, pi_0 = 0.15).
_SUP_WALD = 12.35
_TRIM = 0.15
#: How many times the spread of its surroundings a pause exceeds, and how many times their
#: median it is at least.
_PAUSE_SPREADS = 8.0
_PAUSE_TIMES = 2.0

Series = NDArray[np.float64]


@dataclass(frozen=True)
class Step:
    """From sample ``at`` on, times are ``ratio`` times those before."""

    at: int
    ratio: float


@dataclass(frozen=True)
class Pause:
    """Sample ``at`` took ``ms``, ``times`` the median around it."""

    at: int
    ms: float
    times: float


@dataclass(frozen=True)
class Shape:
    """What a series does.

    Attributes:
        start: its level at the first sample, in its own unit.
        per_thousand: growth over 1,000 samples as a share of ``start``, steps left out.
        interval: both ends of ``per_thousand``'s confidence interval.
        steps: level shifts, in order.
        pauses: single slow samples.
    """

    start: float
    per_thousand: float
    interval: tuple[float, float]
    steps: tuple[Step, ...]
    pauses: tuple[Pause, ...]

    @property
    def grows(self) -> bool:
        """Whether growth is beyond chance, and large enough to matter."""
        return self.interval[0] > 0 and self.per_thousand > SMALLEST


def shape(times: Sequence[float]) -> Shape | None:
    """Tell what positive ``times`` do, in the order in which they were taken.

    Growth and steps are fitted together to the blocks' medians by least squares, so that the
    interval around the one (Student's t) knows of the other.

    Returns:
        ``None`` for a series of fewer than eight blocks of 16.
    """
    values = np.asarray(times, dtype=np.float64)
    points = _block_medians(values)
    if len(points) < _LEAST:
        return None
    at = (np.arange(len(points)) + 0.5) * BLOCK
    steps = _find_steps(points)
    jumps = [(at > step.at).astype(np.float64) for step in steps]
    design = np.column_stack([np.ones(len(points)), at, *jumps])
    fitted, rest = _squares(design, points)
    freedom = len(points) - design.shape[1]
    error = math.sqrt(rest / freedom * np.linalg.inv(design.T @ design)[1, 1])
    reach = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * error
    start, slope = (float(each) for each in fitted[:2])
    scale = 1000 / (start if start > 0 else float(points[0]))
    return Shape(
        start=start,
        per_thousand=slope * scale,
        interval=((slope - reach) * scale, (slope + reach) * scale),
        steps=steps,
        pauses=_find_pauses(values),
    )


def _block_medians(values: Series) -> Series:
    whole = len(values) // BLOCK
    return np.asarray(np.median(values[: whole * BLOCK].reshape(whole, BLOCK), axis=1))


def _find_steps(points: Series, offset: int = 0) -> tuple[Step, ...]:
    """Level shifts among ``points``: the most certain first, then those on either side of it."""
    found = _likeliest_step(points)
    if found is None:
        return ()
    place, ratio = found
    return (
        *_find_steps(points[:place], offset),
        Step((offset + place) * BLOCK, ratio),
        *_find_steps(points[place:], offset + place),
    )


def _likeliest_step(points: Series) -> tuple[int, float] | None:
    """Where a line with a jump in it fits best, if the jump is beyond chance."""
    count = len(points)
    if count < _LEAST:
        return None
    at = np.arange(count, dtype=np.float64)
    line = np.column_stack([np.ones(count), at])
    without = _squares(line, points)[1]
    edge = max(2, math.ceil(_TRIM * count))
    best: tuple[float, int, float] = (0.0, 0, 1.0)
    for place in range(edge, count - edge + 1):
        jump = (at >= place).astype(np.float64)
        fitted, rest = _squares(np.column_stack([line, jump]), points)
        spread = max(rest, 1e-12 * float(points @ points)) / (count - 3)
        before = float(fitted[0] + fitted[1] * (place - 0.5))
        ratio = 1 + float(fitted[2]) / before if before > 0 else 1.0
        best = max(best, ((without - rest) / spread, place, ratio))
    statistic, place, ratio = best
    if statistic < _SUP_WALD or abs(math.log(max(ratio, 1e-9))) < math.log1p(SMALLEST):
        return None
    return place, ratio


def _squares(design: Series, points: Series) -> tuple[Series, float]:
    """Least squares: the coefficients, and the sum of squares that is left."""
    fitted = np.linalg.lstsq(design, points, rcond=None)[0]
    rest = points - design @ fitted
    return np.asarray(fitted), float(rest @ rest)


def _find_pauses(values: Series) -> tuple[Pause, ...]:
    """Samples far above the 33 around them."""
    around = np.lib.stride_tricks.sliding_window_view(
        np.pad(values, BLOCK, mode="reflect"), 2 * BLOCK + 1
    )
    middle = np.median(around, axis=1)
    spread = 1.4826 * np.median(np.abs(around - middle[:, np.newaxis]), axis=1)
    bound = np.maximum(_PAUSE_TIMES * middle, middle + _PAUSE_SPREADS * spread)
    return tuple(
        Pause(int(index), float(values[index]), float(values[index] / middle[index]))
        for index in np.flatnonzero(values > bound)
    )


def sweep_shape(sweep: ContextSweep) -> Shape | None:
    """What decode time does on the way to a long context; ``at`` are positions.

    At each position the fastest page counts: what slows only one of them is the machine's,
    what slows all is the loop's.
    """
    shortest = min((len(run) for run in sweep.runs), default=0)
    if shortest <= sweep.warmup:
        return None
    runs = np.asarray([run[sweep.warmup : shortest] for run in sweep.runs])
    found = shape(runs.min(axis=0).tolist())
    if found is None:
        return None
    first = sweep.prompt_tokens + 1 + sweep.warmup
    return replace(
        found,
        steps=tuple(replace(step, at=step.at + first) for step in found.steps),
        pauses=tuple(replace(pause, at=pause.at + first) for pause in found.pauses),
    )
