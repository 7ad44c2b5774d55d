"""Pages over several reports: a comparison, a trend.  As ``report.html``, they run no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup

from browser_harness.judge.metrics import METRICS
from browser_harness.judge.units import show
from browser_harness.report import comparison, trend
from browser_harness.report.comparison import Named, Row
from browser_harness.report.html import environment
from browser_harness.report.series import Mark, series
from manifests.history import Entry


@dataclass(frozen=True)
class TableView:
    """A table with its rows by target."""

    title: str
    note: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Plot:
    """One drawing and what it is of."""

    title: str
    target: str
    drawing: Markup


def _render(title: str, lead: str, tables: Sequence[TableView], plots: Sequence[Plot]) -> str:
    template = environment().get_template("series.html")
    return template.render(title=title, lead=lead, tables=tables, plots=plots)


def render_comparison(reports: Sequence[Named]) -> str:
    """Render several reports as one page."""
    labels = tuple(label for label, _ in reports)
    around, found = comparison.environment(reports), comparison.records(reports)
    plots = []
    for (target, metric), group in groupby(found, key=lambda each: (each.target, each.metric)):
        known = METRICS[metric]
        marks = [Mark(each.report, each.value, each.low, each.high) for each in group]
        if known.kind in ("size", "load", "speed", "memory"):
            drawing = series(marks, known.unit, f"{known.label}, {target}", joined=False)
            plots.append(Plot(known.label, target, drawing))
    return _render(
        "Reports, side by side",
        ", ".join(labels),
        (
            TableView("Environment", "", labels, tuple(around)),
            TableView(
                "Figures",
                comparison.note(around),
                labels,
                tuple(comparison.figures(reports, found)),
            ),
        ),
        plots,
    )


def render_trend(entries: Sequence[Entry]) -> str:
    """Render a history as one page."""
    found = trend.lines(entries)
    rows = tuple(
        Row(
            target=each.target,
            label=each.known.label,
            cells=(
                show(each.values[0], each.known.unit),
                show(each.values[-1], each.known.unit),
                "–" if each.since is None else f"× {each.since:.3f}",
            ),
        )
        for each in found
    )
    plots = [
        Plot(
            each.known.label,
            each.target,
            series(
                each.marks,
                each.known.unit,
                f"{each.known.label}, {each.target}",
                breaks=each.breaks,
                joined=True,
            ),
        )
        for each in found
    ]
    count = f"{len(entries)} report{'s' if len(entries) > 1 else ''}"
    return _render(
        f"{entries[-1].bundle}: trend",
        f"{count}, {entries[0].created} to {entries[-1].created}",
        (TableView("Figures", "", ("First", "Last", "Last over first"), rows),),
        plots,
    )
