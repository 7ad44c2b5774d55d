"""The table of metrics in ``docs/budget.md``, written from :data:`METRICS`.

``python -m browser_harness.judge.docs docs/budget.md`` brings the page up to date.
"""

from __future__ import annotations

import sys
from itertools import groupby
from pathlib import Path

from browser_harness.judge.metrics import METRICS

_START, _END = "<!-- metrics: written by browser_harness.judge.docs -->", "<!-- /metrics -->"

_KINDS = {
    "size": "Size",
    "load": "Load",
    "speed": "Speed",
    "work": "Work of a token",
    "memory": "Memory",
    "parity": "Parity with PyTorch",
    "health": "Health",
}


def metrics_tables() -> str:
    """A Markdown table per kind of metric."""
    lines: list[str] = []
    for kind, metrics in groupby(METRICS.items(), key=lambda item: item[1].kind):
        lines += [f"### {_KINDS[kind]}", ""]
        lines += ["| metric | unit | better | what it is |", "| --- | --- | --- | --- |"]
        for name, metric in metrics:
            statistic = metric.statistic.replace("||", "‖")
            lines.append(f"| `{name}` | {metric.unit} | {metric.better} | {statistic} |")
        lines.append("")
    return "\n".join(lines)


def update(page: str) -> str:
    """``page`` with the part between its two markers written anew.

    Raises:
        ValueError: a marker is missing.
    """
    before, _, rest = page.partition(_START)
    _, found, after = rest.partition(_END)
    if not found:
        raise ValueError(f"the page lacks {_START} ... {_END}")
    return f"{before}{_START}\n\n{metrics_tables()}\n{_END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(update(path.read_text("utf-8")), "utf-8")
