"""Several reports in one table: the figures, and beside them what else was not the same."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from browser_harness.judge.environment import facts
from browser_harness.judge.figures import Figure, compare, figure
from browser_harness.judge.intervals import CONFIDENCE
from browser_harness.judge.limits import ALLOWED_REGRESSION
from browser_harness.judge.metrics import METRICS, Metric
from browser_harness.judge.units import show
from browser_harness.report.glance import NONE, PYTORCH, engines
from browser_harness.report.markdown import plain, table
from browser_harness.report.text import printable
from manifests.base import Real, Schema
from manifests.report import Comparison, Report, TargetReport

Named = tuple[str, Report]


class Record(Schema):
    """One figure of one report, in its metric's unit.

    ``ratio`` is the figure over the first report's, ``change`` what it says at 5 %
    allowed; both are empty where the environments differ.  ``engine`` is the browser, or what
    was measured beside it; no intervals are told of the latter.
    """

    target: str
    metric: str
    unit: str
    report: str
    engine: str = "browser"
    value: Real | None = None
    low: Real | None = None
    high: Real | None = None
    ratio: Real | None = None
    ratio_low: Real | None = None
    ratio_high: Real | None = None
    change: str | None = None


class Row(Schema):
    """One line of the table; ``differs`` where an environment's cells are not all alike."""

    target: str
    label: str
    cells: tuple[str, ...]
    differs: bool = False


class SideBySide(Schema):
    """The whole comparison, as data."""

    environment: tuple[Row, ...]
    figures: tuple[Record, ...]
    outside: tuple[Record, ...] = ()


def records(reports: Sequence[Named]) -> list[Record]:
    """Every figure that any of ``reports`` holds, by target, metric and report."""
    return [
        _record(target, metric, named, reports[0][1])
        for target in _targets(reports)
        for metric in _metrics(reports, target)
        for named in reports
    ]


def outside(reports: Sequence[Named]) -> list[Record]:
    """PyTorch's and native engines' figures of the same thing, by report, target and engine."""
    return [
        Record(
            target=target,
            metric=metric,
            unit=known.unit,
            report=label,
            engine=engine,
            value=value,
        )
        for label, report in reports
        for target, held in report.targets.items()
        for engine, speed in engines(report.reference).items()
        for metric, known in METRICS.items()
        # Answers are PyTorch's only.
        if known.reference is not None
        and (engine == PYTORCH or known.kind != "parity")
        and (value := known.reference(held, speed)) is not None
    ]


def _targets(reports: Sequence[Named]) -> list[str]:
    return list(dict.fromkeys(name for _, report in reports for name in report.targets))


def _metrics(reports: Sequence[Named], target: str) -> list[str]:
    held = [report.targets[target] for _, report in reports if target in report.targets]
    return [
        name
        for name, known in METRICS.items()
        if any(known.read(each) is not None for each in held)
    ]


def _record(target: str, metric: str, named: Named, first: Report) -> Record:
    label, report = named
    known, held = METRICS[metric], report.targets.get(target)
    found = Figure(None) if held is None else figure(known, held)
    against = None if held is None else _against(known, target, report, first)
    ends = None if against is None else against.interval
    return Record(
        target=target,
        metric=metric,
        unit=known.unit,
        report=label,
        value=found.value,
        low=None if found.interval is None else found.interval.low,
        high=None if found.interval is None else found.interval.high,
        ratio=None if against is None else against.ratio,
        ratio_low=None if ends is None else ends.low,
        ratio_high=None if ends is None else ends.high,
        change=None if against is None else against.change,
    )


def _against(known: Metric, target: str, report: Report, first: Report) -> Comparison | None:
    """``report`` against the first; ``None`` for the first itself and where they differ."""
    old: TargetReport | None = first.targets.get(target)
    new = report.targets[target]
    if report is first or old is None or facts(first, old) != facts(report, new):
        return None
    return compare(known, old, new, allowed=ALLOWED_REGRESSION)


def _row(target: str, label: str, cells: Sequence[str], *, differs: bool = False) -> Row:
    return Row(target=target, label=label, cells=tuple(cells), differs=differs)


def environment(reports: Sequence[Named]) -> list[Row]:
    """What explains the figures besides the bundle: first the bundle itself, then by target."""
    rows = [
        _row("", "bundle", [report.bundle.name for _, report in reports]),
        _row("", "seal", [report.bundle.seal[:12] for _, report in reports]),
        _row("", "measured", [report.created for _, report in reports]),
    ]
    for target in _targets(reports):
        told = [
            facts(report, report.targets[target]) if target in report.targets else {}
            for _, report in reports
        ]
        for what in dict.fromkeys(name for each in told for name in each):
            cells = [each.get(what, NONE) for each in told]
            rows.append(_row(target, what, cells, differs=len(set(cells) - {NONE}) > 1))
    return rows


def figures(reports: Sequence[Named], found: Sequence[Record]) -> list[Row]:
    """``found`` for a person, a row per target and metric."""
    width = len(reports)
    return [
        _row(
            found[at].target,
            METRICS[found[at].metric].label,
            [_cell(record) for record in found[at : at + width]],
        )
        for at in range(0, len(found), width)
    ]


def _cell(record: Record) -> str:
    if record.value is None:
        return NONE
    unit = METRICS[record.metric].unit
    text = show(record.value, unit)
    if record.low is not None and record.high is not None:
        text += f" ({show(record.low, unit)} to {show(record.high, unit)})"
    if record.ratio is None:
        return text
    return f"{text} × {record.ratio:.3f} {record.change}"


def note(rows: Sequence[Row]) -> str:
    """What must be known to read the table."""
    told = (
        f"Medians, with {CONFIDENCE:.0%} intervals where several fresh pages were sampled; × is "
        "the figure over the first report's."
    )
    names = list(dict.fromkeys(row.label for row in rows if row.differs))
    if not names:
        return told
    return f"{told} Where {', '.join(names)} differ, figures stand side by side without a ratio."


def to_csv(found: Sequence[Record]) -> str:
    """``found`` as CSV, a line per figure, report and engine, numbers in full."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(Record.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(record.model_dump() for record in found)
    return out.getvalue()


def to_markdown(reports: Sequence[Named]) -> str:
    """The table as Markdown: the environments, then the figures."""
    around = environment(reports)
    labels = [label for label, _ in reports]
    head = ("", "", *(plain(label) for label in labels))
    lines = ["## Environment", "", *table(head, _plain_rows(around), range(0)), ""]
    rows = figures(reports, records(reports))
    lines += ["## Figures", "", plain(note(around)), ""]
    return "\n".join([*lines, *table(head, _plain_rows(rows), range(2, len(head))), ""])


def _plain_rows(rows: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (
            plain(row.target),
            f"**{plain(row.label)}: differs**" if row.differs else plain(row.label),
            *(plain(cell) for cell in row.cells),
        )
        for row in rows
    ]


def to_terminal(reports: Sequence[Named], found: Sequence[Record]) -> RenderableType:
    """The table for a terminal."""
    around = environment(reports)
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Target", ""):
        grid.add_column(column)
    for label, _ in reports:
        grid.add_column(Text(printable(label)), overflow="fold")
    for row in (*around, *figures(reports, found)):
        label = f"{row.label}: differs" if row.differs else row.label
        grid.add_row(
            Text(printable(row.target)),
            Text(printable(label), style="bold yellow" if row.differs else ""),
            *(Text(printable(cell)) for cell in row.cells),
        )
    return Group(grid, Text(note(around), style="dim"))
