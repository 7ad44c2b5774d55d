"""The report on a terminal: what failed first, then figures, then every check."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from browser_harness.judge.metrics import METRICS
from browser_harness.report import glance
from browser_harness.report.sweeps import sweep_findings
from browser_harness.report.text import isolated, printable
from manifests.report import Report

_STYLES = {
    "pass": "green",
    "warn": "yellow",
    "fail": "bold red",
    "inconclusive": "cyan",
    "unjudged": "dim",
}


def render(report: Report) -> RenderableType:
    """Lay ``report`` out for rich; nothing in it is read as rich's markup."""
    parts: list[RenderableType] = [_heading(report), _figures(report)]
    parts += [
        Text.assemble(
            (f"{isolated(printable(name))} failed: ", "bold red"),
            isolated(printable(f"{failure.code}: {failure.sentence}")),
            (f" {isolated(printable(failure.next_step))}", "dim"),
        )
        for name, failure in (*glance.failures(report), *glance.failed_turns(report))
    ]
    parts += _sweeps(report)
    if notice := glance.software_notice(report):
        parts.append(Text(printable(notice), style="cyan"))
    if line := glance.baseline_line(report):
        parts.append(Text(isolated(printable(line))))
    if report.verdict is not None:
        parts.append(_checks(report))
    if hint := glance.diagnosis_hint(report):
        parts.append(Text(isolated(printable(hint)), style="yellow"))
    outcome = report.verdict.outcome if report.verdict else "unjudged"
    parts.append(Text(glance.verdict_line(report), style=_STYLES[outcome]))
    return Group(*parts)


def _heading(report: Report) -> Text:
    browser = report.browser
    where = f"{browser.name} {browser.version}, " if browser else ""
    machine = f"{where}{report.machine.cpu}, {report.machine.cores} cores"
    return Text.assemble(
        (isolated(printable(report.bundle.name)), "bold"), "  ", (printable(machine), "dim")
    )


def _figures(report: Report) -> Table:
    data = glance.glance(report)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for column in data.columns:
        table.add_column(Text(isolated(printable(column))), justify="right")
    for row in data.rows:
        table.add_row(Text(isolated(printable(row.label))), *row.cells)
    return table


def _sweeps(report: Report) -> list[RenderableType]:
    return [
        Text.assemble((printable(f"{target}, {name}: "), "bold"), printable(sentence))
        for target, data in report.targets.items()
        for name, sentence in sweep_findings(data)
    ]


def _checks(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("Outcome", "Target", "Limit"):
        table.add_column(column)
    table.add_column("Measured", justify="right")
    table.add_column("Bound", justify="right")
    table.add_column("Why", style="dim")
    for name, checks in glance.by_target(report).items():
        for check in checks:
            table.add_row(
                Text(check.outcome, style=_STYLES[check.outcome]),
                Text(isolated(printable(name))),
                METRICS[check.metric].label,
                glance.measured(check),
                glance.limit(check),
                Text(isolated(printable(check.reason))),
            )
    return table
