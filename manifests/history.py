"""``history.jsonl``: one line per judged report, appended and never changed."""

from __future__ import annotations

from typing import Literal

from manifests.base import Real, Schema
from manifests.bundle import Sha256
from manifests.report import Interval


class Point(Schema):
    """One figure in its metric's unit: the median, with its interval where samples have one."""

    value: Real
    interval: Interval | None = None


class Entry(Schema):
    """One judged report.

    ``environment`` is what reports must share to be compared, by target; ``figures`` are
    by target, then by metric.
    """

    format: Literal["tabwright-history"] = "tabwright-history"
    version: Literal[1] = 1
    created: str
    bundle: str
    seal: Sha256
    outcome: Literal["pass", "fail", "inconclusive"]
    environment: dict[str, dict[str, str]]
    figures: dict[str, dict[str, Point]]
