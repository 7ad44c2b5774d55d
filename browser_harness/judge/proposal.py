"""A first ``budget.toml``, from what a report holds and a stated headroom."""

from __future__ import annotations

import json
import math
import re
from decimal import ROUND_CEILING, ROUND_FLOOR, Context

from browser_harness.judge.figures import figure
from browser_harness.judge.limits import ALLOWED_REGRESSION
from browser_harness.judge.metrics import METRICS, Metric
from manifests.budget import Budget, Limit
from manifests.report import Report, TargetReport

#: How much further than measured a loss may go: below it is what float arithmetic does
#: in another order on another machine.
_LOSS_FACTOR = 2.0
_LEAST_RATIO = 1.01
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def propose(report: Report, headroom: float) -> Budget:
    """Limits that ``report`` keeps.

    Times, speeds, sizes and memory get ``headroom`` (0.2 is 20 %); speeds and load times a
    limit on their regression, too, where their samples tell one; losses may double; shares,
    positions and messages may not get worse.  Load times only warn: they are the noisiest.
    What is missing, what a software adapter says of speed, and targets that failed are left
    out.
    """
    return Budget(
        limits={
            name: {
                metric: _limit(
                    known, value, headroom, compared=figure(known, target).interval is not None
                )
                for metric, known in METRICS.items()
                if (value := _judgeable(known, target)) is not None
            }
            for name, target in report.targets.items()
            if target.failure is None
        }
    )


def _judgeable(metric: Metric, target: TargetReport) -> float | None:
    value = metric.read(target)
    if value is None or not math.isfinite(value):
        return None
    # What is made of decode's own times has decode's limit.
    if metric.kind == "work" and metric.timed:
        return None
    return None if metric.speed_like and target.software_adapter else value


def _bar(metric: Metric, value: float, headroom: float) -> float:
    if metric.kind in ("size", "load", "speed", "memory"):
        lower = metric.better == "lower"
        return _rounded(value * (1 + headroom) if lower else value / (1 + headroom), up=lower)
    if metric.unit in ("logits", "nats"):
        return _rounded(value * _LOSS_FACTOR, up=True)
    if metric.unit == "ratio":
        return max(_LEAST_RATIO, _rounded(1 + _LOSS_FACTOR * (value - 1), up=True))
    return value


def _limit(metric: Metric, value: float, headroom: float, *, compared: bool) -> Limit:
    lower = metric.better == "lower"
    bar = _bar(metric, value, headroom)
    return Limit(
        max=bar if lower else None,
        min=None if lower else bar,
        regression=ALLOWED_REGRESSION if compared else None,
        level="warn" if metric.kind == "load" else "error",
    )


def _rounded(value: float, *, up: bool) -> float:
    """``value`` to three digits, away from what was measured."""
    context = Context(prec=3, rounding=ROUND_CEILING if up else ROUND_FLOOR)
    return float(context.create_decimal(repr(value)))


def to_toml(budget: Budget, heading: str) -> str:
    """``budget`` as TOML, below ``heading`` as a comment."""
    lines = [f"# {line}" for line in heading.splitlines()]
    lines += ["", "[gate]", f"inconclusive = {json.dumps(budget.gate.inconclusive)}"]
    tables = {"defaults": budget.defaults} if budget.defaults else {}
    tables |= {f"limits.{_key(name)}": limits for name, limits in budget.limits.items()}
    for table, limits in tables.items():
        lines += ["", f"[{table}]"]
        for metric, limit in limits.items():
            fields = limit.model_dump(exclude_defaults=True)
            inside = ", ".join(f"{name} = {_value(value)}" for name, value in fields.items())
            lines.append(f"{_key(metric)} = {{ {inside} }}")
    return "\n".join(lines) + "\n"


def _key(name: str) -> str:
    # A JSON string without surrogates is a basic string of TOML.
    return name if _BARE_KEY.fullmatch(name) else json.dumps(name)


def _value(value: float | str) -> str:
    if isinstance(value, str):
        return json.dumps(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)
