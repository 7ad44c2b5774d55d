"""The sweeps of a target, drawn: each plot with what it shows and with every sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from browser_harness.report import sweep_charts
from browser_harness.report.sweeps import sweep_findings
from manifests.report import TargetReport
from manifests.sweeps import ConditionLoad, LeakSweep, Sweeps


class Plot(NamedTuple):
    """A drawing, what it shows, and every sample in it."""

    title: str
    explanation: str
    drawing: Markup
    samples: tuple[str, ...]


@dataclass(frozen=True)
class SweepView:
    """Findings as name and sentence; plots as title, explanation, drawing and samples."""

    findings: tuple[tuple[str, str], ...]
    plots: tuple[Plot, ...]

    @classmethod
    def of(cls, target: TargetReport) -> SweepView | None:
        """Draw what was swept; ``None`` where there is nothing to tell."""
        sweeps, findings = target.sweeps or Sweeps(), sweep_findings(target)
        if not findings:
            return None
        plots: list[Plot] = []
        if sweeps.context is not None:
            context = sweeps.context
            plots.append(
                Plot(
                    "Decode to a long context",
                    "A dot per token, hollow while warming up; at the upper edge what took "
                    "three medians or more. Line: growth and steps, of the fastest page at each "
                    "position.",
                    sweep_charts.context_plot(context),
                    tuple(
                        f"page {page + 1}, from position {context.prompt_tokens + 2}, "
                        f"{context.warmup} to warm up: {_milliseconds(run)}"
                        for page, run in enumerate(context.runs)
                    ),
                )
            )
        if sweeps.prompts:
            plots.append(
                Plot(
                    "First token by prompt length, swept",
                    "A dot per repetition, hollow while warming up; the line joins the medians.",
                    sweep_charts.prompt_plot(sweeps.prompts),
                    tuple(
                        f"{sample.prompt_tokens} tokens, {sample.warmup} to warm up: "
                        f"{_milliseconds(sample.ms)}"
                        for sample in sweeps.prompts
                    ),
                )
            )
        if sweeps.loads:
            plots.append(
                Plot(
                    "Load by condition",
                    "The median load of each condition, phase by phase; small ticks are every "
                    "load's total.",
                    sweep_charts.condition_plot(sweeps.loads),
                    tuple(_load(load) for load in sweeps.loads),
                )
            )
        if sweeps.leaks is not None:
            plots.append(
                Plot(
                    "Memory after each load and release",
                    f"{', '.join(name for name, _ in sweep_charts.LEAK_LEGEND)}, after a garbage "
                    "collection; the stripe is not judged.",
                    sweep_charts.leak_plot(sweeps.leaks),
                    tuple(_cycles(sweeps.leaks)),
                )
            )
        return cls(findings, tuple(plots))


def _milliseconds(times: Iterable[float]) -> str:
    return " ".join(f"{ms:.1f}" for ms in times) + " ms"


def _load(load: ConditionLoad) -> str:
    times = load.timings
    return (
        f"{load.network or load.condition}: total {times.total_ms:.0f}, "
        f"fetch {times.fetch_ms:.0f}, verify {times.verify_ms:.0f}, store {times.store_ms:.0f}, "
        f"session {times.session_ms:.0f}, first token {load.first_token_ms:.0f} ms; "
        f"{load.bytes_on_wire:,} bytes on the wire"
    )


def _cycles(sweep: LeakSweep) -> Iterable[str]:
    for index, cycle in enumerate(sweep.cycles):
        told = ", ".join(f"{name} {value:,}" for name, value in cycle if value is not None)
        yield f"cycle {index}{', not judged' if index < sweep.warmup else ''}: {told} bytes"
