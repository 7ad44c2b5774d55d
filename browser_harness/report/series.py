"""A figure from report to report, as a plot: each value at its place, with its interval."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from browser_harness.judge.units import Unit, show
from browser_harness.report.svg import LEFT, RIGHT, WIDTH, Scale, line, svg, text, y_axis

_BOTTOM, _TOP = 190, 12


@dataclass(frozen=True)
class Mark:
    """One value, its interval's ends where it has one, and what it is of."""

    name: str
    value: float | None
    low: float | None = None
    high: float | None = None


def series(
    marks: Sequence[Mark], unit: Unit, title: str, *, breaks: Collection[int] = (), joined: bool
) -> Markup:
    """Draw ``marks`` from left to right, over a scale that begins at 0.

    Args:
        marks: in order; one without a value leaves a gap.
        unit: of the values.
        title: what the plot is read out as.
        breaks: indices before which the environment changed: a dashed line stands there,
            and nothing is joined across it.
        joined: whether neighbours are joined by a line.
    """
    tops = [end for mark in marks for end in (mark.value, mark.high) if end is not None]
    x = Scale(max(len(marks), 1), LEFT, WIDTH - RIGHT)
    y = Scale(max(tops, default=0) * 1.1, _BOTTOM, _TOP)
    parts = [y_axis(y, unit)]
    places: list[list[str]] = [[]]
    for i, mark in enumerate(marks):
        at = x(i + 0.5)
        if i in breaks:
            parts.append(line(x(i), _TOP, x(i), _BOTTOM, "torch"))
            places.append([])
        if mark.value is None:
            places.append([])
            continue
        if mark.low is not None and mark.high is not None:
            parts.append(line(at, y(mark.low), at, y(mark.high), "median"))
        parts.append(_dot(at, y(mark.value), f"{mark.name}: {show(mark.value, unit)}"))
        places[-1].append(f"{at},{y(mark.value)}")
    if joined:
        parts += [
            Markup('<polyline points="{}" class="line s1"/>').format(" ".join(run))
            for run in places
            if len(run) > 1
        ]
    # Names where they fit; every mark tells its own when pointed at.
    room = (WIDTH - LEFT - RIGHT) / max(len(marks), 1)
    parts += [
        text(x(i + 0.5), _BOTTOM + 16, mark.name, "tick", "middle")
        for i, mark in enumerate(marks)
        if room > 6.5 * len(mark.name)
    ]
    return svg(_BOTTOM + 24, title, *parts)


def _dot(x: str, y: str, title: str) -> Markup:
    return Markup('<circle cx="{}" cy="{}" r="3.2" class="dot"><title>{}</title></circle>').format(
        x, y, title
    )
