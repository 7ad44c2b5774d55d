"""What a verdict is as GitHub's workflow commands: a line on the run's page per broken limit.

The syntax is that of "Workflow commands for GitHub Actions".
"""

from __future__ import annotations

from types import MappingProxyType

from browser_harness.judge.metrics import METRICS
from browser_harness.report import glance
from browser_harness.report.text import printable
from manifests.report import Report

_COMMANDS = MappingProxyType({"fail": "error", "warn": "warning", "inconclusive": "notice"})


def _data(text: str) -> str:
    return printable(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def _line(command: str, title: str, text: str) -> str:
    return f"::{command} title={_property(title)}::{_data(text)}"


def annotate(report: Report) -> list[str]:
    """One line per target that failed, and per check that did not pass."""
    if report.verdict is None:
        return []
    lines = [
        _line("error", f"{name} failed", f"{failure.code}: {failure.sentence}")
        for name, failure in glance.failures(report)
    ]
    for check in report.verdict.checks:
        if check.outcome in _COMMANDS:
            title = f"{check.target}: {METRICS[check.metric].label}"
            text = f"{glance.measured(check)}, {glance.limit(check)}: {check.reason}"
            lines.append(_line(_COMMANDS[check.outcome], title, text))
    return lines
