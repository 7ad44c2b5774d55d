"""Plots of the sweeps; as in :mod:`browser_harness.report.charts`, escaped SVG text."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from markupsafe import Markup

from browser_harness.judge.growth import sweep_shape
from browser_harness.judge.leaks import WATCHED
from browser_harness.report.charts import load_waterfall
from browser_harness.report.svg import LEFT, RIGHT, WIDTH, Scale, line, svg, text, x_axis, y_axis
from manifests.report import LoadSample
from manifests.sweeps import ConditionLoad, ContextSweep, LeakSweep, PromptSample

_TOP, _BOTTOM = 12, 190


def context_plot(sweep: ContextSweep) -> Markup:
    """Milliseconds of every token by its position; the line is what growth and steps fit.

    The axis ends at three times the median: pauses above it are drawn at the edge.
    """
    every = sorted(ms for run in sweep.runs for ms in run[sweep.warmup :])
    first = sweep.prompt_tokens + 1
    x = Scale(first + max(len(run) for run in sweep.runs), LEFT, WIDTH - RIGHT)
    y = Scale(3 * every[len(every) // 2] if every else 0.0, _BOTTOM, _TOP)
    parts = [y_axis(y, "ms"), x_axis(x, None, _BOTTOM, _BOTTOM)]
    for run in sweep.runs:
        for index, ms in enumerate(run):
            css = "dot hollow" if index < sweep.warmup else "dot"
            parts.append(_dot(x(first + index), y(ms), css))
    found = sweep_shape(sweep)
    if found is not None:
        at, level = float(first + sweep.warmup), 1.0
        slope = found.start * found.per_thousand / 1000
        for end, ratio in [*((s.at, s.ratio) for s in found.steps), (int(x.top), 1.0)]:
            heights = [
                level * found.start + slope * (each - first - sweep.warmup) for each in (at, end)
            ]
            parts.append(line(x(at), y(heights[0]), x(end), y(heights[1]), "median"))
            at, level = float(end), level * ratio
    parts.append(text((LEFT + WIDTH) / 2, 224, "position", "tick", "middle"))
    return svg(230, "Milliseconds per token by position", *parts)


def prompt_plot(samples: Sequence[PromptSample]) -> Markup:
    """Milliseconds to the first token by prompt length; the line joins the medians."""
    x = Scale(max((s.prompt_tokens for s in samples), default=1) * 1.04, LEFT, WIDTH - RIGHT)
    y = Scale(max((ms for s in samples for ms in s.ms), default=0) * 1.05, _BOTTOM, _TOP)
    parts = [y_axis(y, "ms"), x_axis(x, None, _BOTTOM, _BOTTOM)]
    places = []
    for sample in samples:
        for index, ms in enumerate(sample.ms):
            css = "dot hollow" if index < sample.warmup else "dot"
            parts.append(_dot(x(sample.prompt_tokens), y(ms), css))
        if len(sample.ms) > sample.warmup:
            places.append(f"{x(sample.prompt_tokens)},{y(median(sample.ms[sample.warmup :]))}")
    parts.append(Markup('<polyline points="{}" class="line s1"/>').format(" ".join(places)))
    parts.append(text((LEFT + WIDTH) / 2, 224, "tokens in the prompt", "tick", "middle"))
    return svg(230, "Time to first token by prompt length", *parts)


def condition_plot(loads: Sequence[ConditionLoad]) -> Markup:
    """The waterfall of a load under each condition."""
    groups = {
        load.network or load.condition: [
            LoadSample(
                timings=each.timings,
                first_token_ms=each.first_token_ms,
                bytes_on_wire=each.bytes_on_wire,
            )
            for each in loads
            if each.condition == load.condition
        ]
        for load in loads
    }
    return load_waterfall(tuple(groups.items()))


def leak_plot(sweep: LeakSweep) -> Markup:
    """Bytes held after each load and release, a line each; the stripe is the warm-up."""
    x = Scale(max(len(sweep.cycles) - 1, 1), LEFT, WIDTH - RIGHT)
    held = {
        name: [getattr(cycle, field) for cycle in sweep.cycles]
        for field, (name, _) in WATCHED.items()
    }
    tallest = max((each for values in held.values() for each in values if each), default=0)
    y = Scale(tallest * 1.08, _BOTTOM, _TOP)
    parts = [y_axis(y, "bytes"), x_axis(x, None, _BOTTOM, _BOTTOM)]
    parts.append(
        Markup('<rect x="{}" y="{}" width="{:.1f}" height="{}" class="phase1"/>').format(
            LEFT, _TOP, float(x(max(sweep.warmup - 0.5, 0))) - LEFT, _BOTTOM - _TOP
        )
    )
    for css, (name, values) in zip(LEAK_COLOURS, held.items(), strict=True):
        places = [f"{x(i)},{y(each)}" for i, each in enumerate(values) if each is not None]
        parts.append(
            Markup('<polyline points="{}" class="line {}"><title>{}</title></polyline>').format(
                " ".join(places), css, name
            )
        )
    parts.append(text((LEFT + WIDTH) / 2, 224, "cycle", "tick", "middle"))
    return svg(230, "Memory after each load and release", *parts)


#: By the order of what is watched; the same colours as in the memory plot.
LEAK_COLOURS = ("s4", "s2", "s5", "s1", "s3")
LEAK_LEGEND = tuple(
    (name, css) for css, (name, _) in zip(LEAK_COLOURS, WATCHED.values(), strict=True)
)


def _dot(x: str, y: str, css: str) -> Markup:
    return Markup('<circle cx="{}" cy="{}" r="1.8" class="{}"/>').format(x, y, css)
