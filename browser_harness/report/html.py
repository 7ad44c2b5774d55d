"""``report.html``: one file that opens anywhere, asks the network for nothing, runs no script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from browser_harness.judge.metrics import METRICS, perplexity_ratio
from browser_harness.judge.units import Unit, show
from browser_harness.report import charts, glance
from browser_harness.report.sweep_view import SweepView
from manifests.agreement import Agreement
from manifests.reference import Speed
from manifests.report import MemoryPoint, Report, TargetReport

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class TargetView:
    """A target with its plots drawn."""

    name: str
    data: TargetReport
    load: Markup | None
    first: Markup | None
    decode: Markup | None
    memory: Markup | None
    memory_series: tuple[tuple[str, str, str], ...]
    memory_phases: tuple[tuple[str, MemoryPoint], ...]
    sweeps: SweepView | None

    @classmethod
    def of(cls, name: str, target: TargetReport, reference: Speed | None) -> TargetView:
        """Draw what was measured; a plot without samples is ``None``."""
        points = target.memory.timeline if target.memory else ()
        return cls(
            name=name,
            data=target,
            load=(
                charts.load_waterfall((("Cold", target.cold), ("Warm", target.warm)))
                if target.cold or target.warm
                else None
            ),
            first=charts.first_tokens(target.prefill, reference) if target.prefill else None,
            decode=charts.decode_times(target.decode, reference) if target.decode else None,
            memory=charts.memory_timeline(points) if points else None,
            memory_series=tuple(charts.memory_series(points)),
            memory_phases=tuple(_phase_peaks(points)),
            sweeps=SweepView.of(target),
        )


def _phase_peaks(points: Sequence[MemoryPoint]) -> list[tuple[str, MemoryPoint]]:
    """Per phase in order, the look with the largest sum of the two processes."""
    return [
        (phase, max(group, key=lambda point: point.renderer_pss + point.gpu_process_pss))
        for phase, group in groupby(points, key=lambda point: point.phase)
    ]


def _agreement_rows(agreement: Agreement) -> list[tuple[str, str]]:
    """An agreement as label and figure."""
    ratio = perplexity_ratio(agreement)
    figures: tuple[tuple[str, float | None, Unit], ...] = (
        ("Positions scored", agreement.positions, "positions"),
        ("Top-1 agreement", agreement.top1, "share"),
        ("Largest logit difference", agreement.max_abs_logit, "logits"),
        ("Mean logit difference", agreement.mean_abs_logit, "logits"),
        ("KL divergence, mean", agreement.kl_mean, "nats"),
        ("KL divergence, largest", agreement.kl_max, "nats"),
        ("Perplexity of the reference", agreement.perplexity_reference, "perplexity"),
        ("Perplexity", agreement.perplexity, "perplexity"),
        ("Perplexity ratio", ratio, "ratio"),
    )
    return [
        (label, glance.NONE if value is None else show(value, unit))
        for label, value, unit in figures
    ]


@cache
def environment() -> Environment:
    """The templates, with what they may call."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        agreement_rows=_agreement_rows,
        answered=glance.answered,
        metrics=METRICS,
        none=glance.NONE,
        show=show,
        limit=glance.limit,
        measured=glance.measured,
        # The style sheet is ours: as markup it is not escaped into the page.
        style=Markup((_TEMPLATES / "report.css").read_text("utf-8")),  # noqa: S704
    )
    return environment


def render_html(report: Report) -> str:
    """Render ``report`` as one self-contained page; everything in it is escaped."""
    speed = report.reference.speed if report.reference else None
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            verdict=report.verdict.outcome if report.verdict else "unjudged",
            counts=glance.verdict_counts(report),
            baseline=glance.baseline_line(report),
            software=glance.software_notice(report),
            hint=glance.diagnosis_hint(report),
            failures=glance.failures(report),
            checks=glance.by_target(report),
            glance=glance.glance(report),
            targets=[TargetView.of(name, t, speed) for name, t in report.targets.items()],
            sizes=charts.size_bars(report.bundle.bytes_by_kind),
        )
    )


def write_html(report: Report, path: Path) -> None:
    """Write ``report`` to ``path`` as HTML."""
    path.write_text(render_html(report), "utf-8")
