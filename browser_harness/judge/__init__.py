"""What the figures of a report are called, how they are read, and the gate over them."""

from browser_harness.judge.gate import exit_status, judge
from browser_harness.judge.limits import check_budget, default_budget
from browser_harness.judge.metrics import METRICS, Metric

__all__ = [
    "METRICS",
    "Metric",
    "check_budget",
    "default_budget",
    "exit_status",
    "judge",
]
