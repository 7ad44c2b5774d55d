"""A Markdown summary, for a pull request or the page of a CI run."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from browser_harness.judge.metrics import METRICS
from browser_harness.report import glance
from browser_harness.report.text import isolated, printable
from manifests.report import Report

#: GitHub names the file here that it shows as a step's summary.
SUMMARY_VARIABLE = "GITHUB_STEP_SUMMARY"

_ICONS = {"pass": "✅", "warn": "⚠️", "fail": "❌", "inconclusive": "❔"}
_CHECK_HEAD = ("Outcome", "Target", "Limit", "Measured", "Bound", "Why")
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#+!|~@$])")


def plain(text: str) -> str:
    """``text`` as one line that Markdown shows as it is: no markup, no HTML, no mention."""
    line = (
        isolated(" ".join(printable(text).split()))
        .replace("&", "&amp;")
        .replace("<", "&lt;")
        .replace(">", "&gt;")
    )
    return _SPECIAL.sub(r"\\\1", line)


def table(head: Sequence[str], rows: Iterable[Sequence[str]], numbers: range) -> list[str]:
    """The lines of a table; the columns ``numbers`` are set to the right."""
    rule = ["---:" if i in numbers else "---" for i in range(len(head))]
    return [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]


def render_markdown(report: Report) -> str:
    """Render the verdict, the failures, the checks and the figures of ``report``."""
    lines = [f"## {plain(report.bundle.name)}", "", f"**{glance.verdict_line(report)}**", ""]
    for name, failure in (*glance.failures(report), *glance.failed_turns(report)):
        sentence = plain(f"{failure.code}: {failure.sentence}")
        lines += [f"> ❌ **{plain(name)}** failed: {sentence}", ""]
    if notice := glance.software_notice(report):
        lines += [f"> {plain(notice)}", ""]
    if line := glance.baseline_line(report):
        lines += [plain(line), ""]
    rows = [
        (
            f"{_ICONS[check.outcome]} {check.outcome}",
            plain(name),
            METRICS[check.metric].label,
            glance.measured(check),
            glance.limit(check),
            plain(check.reason),
        )
        for name, checks in glance.by_target(report).items()
        for check in checks
    ]
    if rows:
        lines += [*table(_CHECK_HEAD, rows, range(3, 5)), ""]
    if hint := glance.diagnosis_hint(report):
        lines += [plain(hint), ""]
    data = glance.glance(report)
    head = ("", *(plain(column) for column in data.columns))
    lines += table(head, [(row.label, *row.cells) for row in data.rows], range(1, len(head)))
    browser = f"{report.browser.name} {report.browser.version}, " if report.browser else ""
    machine = f"{report.machine.cpu}, {report.machine.cores} cores"
    lines += ["", f"<sub>{plain(browser + machine)}</sub>", ""]
    return "\n".join(lines)


def append_summary(report: Report, environment: Mapping[str, str]) -> Path | None:
    """Append the summary to the file that ``environment`` names for it.

    Returns:
        That file, or ``None`` when :data:`SUMMARY_VARIABLE` is not set.
    """
    name = environment.get(SUMMARY_VARIABLE)
    if not name:
        return None
    path = Path(name)
    with path.open("a", encoding="utf-8") as summary:
        summary.write(render_markdown(report))
    return path
