"""A history as a table and as plots: each figure of each target, from report to report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from browser_harness.judge.metrics import METRICS, Metric
from browser_harness.judge.units import show
from browser_harness.report.series import Mark
from browser_harness.report.text import printable
from manifests.base import Real, Schema
from manifests.history import Entry

_BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Line:
    """One figure of one target over the history.

    Attributes:
        target: whose.
        metric: its name among :data:`METRICS`.
        marks: a value per report, ``None`` where the report does not hold it.
        breaks: indices of reports whose environment is not the one before.
    """

    target: str
    metric: str
    marks: tuple[Mark, ...]
    breaks: frozenset[int]

    @property
    def known(self) -> Metric:
        """What the figure is."""
        return METRICS[self.metric]

    @property
    def values(self) -> list[float]:
        """Those that there are, in order."""
        return [mark.value for mark in self.marks if mark.value is not None]

    @property
    def since(self) -> float | None:
        """The last value over the first one in the last one's environment."""
        start = max(self.breaks, default=0)
        stretch = [mark.value for mark in self.marks[start:] if mark.value is not None]
        return stretch[-1] / stretch[0] if len(stretch) > 1 and stretch[0] else None


def lines(entries: Sequence[Entry]) -> list[Line]:
    """Every figure that any of ``entries`` holds, by target and metric."""
    targets = list(dict.fromkeys(name for entry in entries for name in entry.figures))
    return [
        Line(target, metric, tuple(_mark(each, target, metric) for each in entries), breaks)
        for target in targets
        for breaks in [_breaks(entries, target)]
        for metric in METRICS
        if any(metric in entry.figures.get(target, {}) for entry in entries)
    ]


def _mark(entry: Entry, target: str, metric: str) -> Mark:
    name = f"{entry.created[:10]} {entry.seal[:6]}"
    point = entry.figures.get(target, {}).get(metric)
    if point is None:
        return Mark(name, None)
    ends = point.interval
    if ends is None:
        return Mark(name, point.value)
    return Mark(name, point.value, ends.low, ends.high)


def _breaks(entries: Sequence[Entry], target: str) -> frozenset[int]:
    found, last = set(), None
    for i, entry in enumerate(entries):
        here = entry.environment.get(target)
        if here is None:
            continue
        if last is not None and here != last:
            found.add(i)
        last = here
    return frozenset(found)


def spark(values: Sequence[float]) -> str:
    """``values`` as a row of bars from 0 to the largest."""
    top = max(values, default=0)
    if top <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[min(7, max(0, round(7 * value / top)))] for value in values)


class LineDocument(Schema):
    """One :class:`Line` as data; a report without the figure is ``null``."""

    target: str
    metric: str
    unit: str
    values: tuple[Real | None, ...]
    environment_changes_at: tuple[int, ...]
    last_over_first: Real | None = None


class TrendDocument(Schema):
    """The trend as data."""

    created: tuple[str, ...]
    lines: tuple[LineDocument, ...]


def document(entries: Sequence[Entry]) -> TrendDocument:
    """The trend as data."""
    return TrendDocument(
        created=tuple(entry.created for entry in entries),
        lines=tuple(
            LineDocument(
                target=each.target,
                metric=each.metric,
                unit=each.known.unit,
                values=tuple(mark.value for mark in each.marks),
                environment_changes_at=tuple(sorted(each.breaks)),
                last_over_first=each.since,
            )
            for each in lines(entries)
        ),
    )


def to_terminal(entries: Sequence[Entry]) -> RenderableType:
    """The trend for a terminal, the latest 40 reports as bars."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Target", "Figure"):
        table.add_column(column)
    for column in ("Reports", "First", "Last", "Last over first"):
        table.add_column(column, justify="right")
    table.add_column("")
    for each in lines(entries):
        unit = each.known.unit
        since = "–" if each.since is None else f"× {each.since:.3f}"
        table.add_row(
            Text(printable(each.target)),
            each.known.label,
            str(len(each.values)),
            show(each.values[0], unit),
            show(each.values[-1], unit),
            f"{since}{' *' if each.breaks else ''}",
            spark(each.values[-40:]),
        )
    table.caption = "* the environment changed on the way: only what came after is compared"
    return table
