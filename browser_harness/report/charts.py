"""Plots as SVG text: no script, no fonts, no files; colours come from the page's CSS.

Every function returns escaped markup whose width follows its container.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from markupsafe import Markup

from browser_harness.judge.statistics import judged, summarise
from browser_harness.judge.units import show
from browser_harness.report.svg import LEFT, RIGHT, WIDTH, Scale, line, svg, text, x_axis, y_axis
from manifests.reference import Speed
from manifests.report import DecodeRun, LoadSample, MemoryPoint, PrefillSample


def load_waterfall(loads: Sequence[tuple[str, Sequence[LoadSample]]]) -> Markup:
    """Where loading went: per kind of load, the sample nearest the median total.

    Fetch, verify and store overlap, and only the time in which each was at work is
    known: their bars start where the load does.  The session follows, then the
    first token.  Small ticks are the totals of the other samples.
    """
    shown = [(name, samples, _typical(samples)) for name, samples in loads if samples]
    ends = [s.timings.total_ms + s.first_token_ms for _, samples, _ in shown for s in samples]
    x = Scale(max(ends, default=0) * 1.12, 118, WIDTH - RIGHT)
    row, parts, y = 20, [], 8.0
    for name, samples, sample in shown:
        times, end = sample.timings, sample.timings.total_ms + sample.first_token_ms
        lanes = (
            ("fetch", 0.0, times.fetch_ms, "s1"),
            ("verify", 0.0, times.verify_ms, "s2"),
            ("store", 0.0, times.store_ms, "s3"),
            ("session", times.total_ms - times.session_ms, times.session_ms, "s4"),
            ("first token", times.total_ms, sample.first_token_ms, "s5"),
        )
        count = f"{len(samples)} load" + ("s" if len(samples) > 1 else "")
        parts += [text(0, y + 12, name, "strong"), text(0, y + 28, count, "tick")]
        for label, start, length, css in lanes:
            left, right = x(start), x(start + length)
            parts.append(text(110, y + 12, label, "tick", "end"))
            parts.append(
                Markup('<rect x="{}" y="{}" width="{:.1f}" height="12" class="{}"/>').format(
                    left, y + 2, max(1.5, float(right) - float(left)), css
                )
            )
            parts.append(text(float(right) + 6, y + 12, show(length, "ms"), "value"))
            y += row
        for other in samples:
            at = x(other.timings.total_ms)
            parts.append(line(at, y, at, y + 7, "mark"))
        parts.append(line(118, y, x(end), y, "axis"))
        total = f"ready {show(times.total_ms, 'ms')}, first token {show(end, 'ms')}"
        parts.append(text(118, y + 20, total, "value strong"))
        y += 40
    axis = x_axis(x, "ms", 6, y - 4)
    return svg(y + 16, "Load, phase by phase", axis, *parts)


def _typical(samples: Sequence[LoadSample]) -> LoadSample:
    """The sample whose total is the (lower) median one."""
    ordered = sorted(samples, key=lambda sample: sample.timings.total_ms)
    return ordered[(len(ordered) - 1) // 2]


def decode_times(runs: Sequence[DecodeRun], reference: Speed | None) -> Markup:
    """Milliseconds of each token by position; warm-up hollow.

    A line is the median and a band the 5th to 95th percentile; the dashed line is
    PyTorch's median.
    """
    torch = summarise(reference.decode_ms) if reference else None
    every = [ms for run in runs for ms in run.ms] + ([torch.median] if torch else [])
    x = Scale(max((len(run.ms) for run in runs), default=1), LEFT, WIDTH - RIGHT)
    y = Scale(max(every, default=0) * 1.1, 190, 12)
    parts = [y_axis(y, "ms"), x_axis(x, None, 190, 190)]
    summary = summarise(judged(runs))
    if summary is not None:
        top, bottom = float(y(summary.p95)), float(y(summary.p5))
        parts.append(
            Markup('<rect x="{}" y="{}" width="{}" height="{:.1f}" class="band"/>').format(
                LEFT, top, WIDTH - LEFT - RIGHT, max(bottom - top, 1)
            )
        )
    for run in runs:
        for i, ms in enumerate(run.ms):
            parts.append(_dot(x(i + 1), y(ms), warm_up=i < run.warmup))
    if summary is not None:
        parts.append(line(LEFT, y(summary.median), WIDTH - RIGHT, y(summary.median), "median"))
    if torch is not None:
        parts.append(line(LEFT, y(torch.median), WIDTH - RIGHT, y(torch.median), "torch"))
    parts.append(text((LEFT + WIDTH) / 2, 224, "token after the first", "tick", "middle"))
    return svg(230, "Milliseconds per token by position", *parts)


def first_tokens(samples: Sequence[PrefillSample], reference: Speed | None) -> Markup:
    """Milliseconds to the first token by prompt length, every sample; PyTorch's as diamonds."""
    lengths = {sample.prompt_tokens for sample in samples}
    torch = [s for s in reference.prefill if s.prompt_tokens in lengths] if reference else []
    every = [ms for sample in samples for ms in sample.ms]
    every += [ms for other in torch for ms in other.ms]
    x = Scale(max(lengths, default=1) * 1.08, LEFT, WIDTH - RIGHT)
    y = Scale(max(every, default=0) * 1.1, 190, 12)
    parts = [y_axis(y, "ms"), x_axis(x, None, 190, 190)]
    for sample in samples:
        for i, ms in enumerate(sample.ms):
            parts.append(_dot(x(sample.prompt_tokens), y(ms), warm_up=i < sample.warmup))
    for other in torch:
        at = x(other.prompt_tokens)
        parts += [
            Markup('<path d="M{} {}m0 -5l5 5l-5 5l-5 -5z" class="torch"/>').format(at, y(ms))
            for ms in other.ms
        ]
    parts.append(text((LEFT + WIDTH) / 2, 224, "tokens in the prompt", "tick", "middle"))
    return svg(230, "Time to first token by prompt length", *parts)


def _dot(x: str, y: str, *, warm_up: bool) -> Markup:
    css = "dot hollow" if warm_up else "dot"
    return Markup('<circle cx="{}" cy="{}" r="2.6" class="{}"/>').format(x, y, css)


#: Series of the memory plot: what it is called, its colour, where it is read.
MEMORY_SERIES: tuple[tuple[str, str, str], ...] = (
    ("renderer PSS", "s1", "renderer_pss"),
    ("GPU process PSS", "s3", "gpu_process_pss"),
    ("WASM heap", "s2", "wasm_heap"),
    ("JS heap", "s5", "js_heap"),
    ("GPU buffers", "s4", "gpu_buffers"),
)


def memory_series(points: Sequence[MemoryPoint]) -> list[tuple[str, str, str]]:
    """Those of :data:`MEMORY_SERIES` that ``points`` hold anything of."""
    return [s for s in MEMORY_SERIES if any(getattr(point, s[2]) for point in points)]


def memory_timeline(points: Sequence[MemoryPoint]) -> Markup:
    """Memory by time, a line per process or heap, over the phases of the run."""
    series = memory_series(points)
    start = points[0].at_ms if points else 0.0
    x = Scale(max((p.at_ms for p in points), default=0) - start, LEFT, WIDTH - RIGHT)
    tallest = max((getattr(p, key) or 0 for p in points for *_, key in series), default=0)
    y = Scale(tallest * 1.08, 202, 28)
    parts = [*_phases(points, x, start), y_axis(y, "bytes"), x_axis(x, "ms", 202, 202)]
    for name, css, key in series:
        places = [
            f"{x(point.at_ms - start)},{y(value)}"
            for point in points
            if (value := getattr(point, key)) is not None
        ]
        parts.append(
            Markup('<polyline points="{}" class="line {}"><title>{}</title></polyline>').format(
                " ".join(places), css, name
            )
        )
    return svg(226, "Memory over time", *parts)


def _phases(points: Sequence[MemoryPoint], x: Scale, start: float) -> list[Markup]:
    """A stripe per phase, from its first look to the next phase's; named where it fits."""
    firsts = [next(group) for _, group in groupby(points, key=lambda point: point.phase)]
    ends = [first.at_ms for first in firsts[1:]] + ([points[-1].at_ms] if points else [])
    parts = []
    for i, (first, end) in enumerate(zip(firsts, ends, strict=True)):
        left, right = float(x(first.at_ms - start)), float(x(end - start))
        parts.append(
            Markup(
                '<rect x="{:.1f}" y="8" width="{:.1f}" height="194" class="phase{}">'
                "<title>{}</title></rect>"
            ).format(left, right - left, i % 2, first.phase)
        )
        if right - left > 6.8 * len(first.phase) + 6:
            parts.append(text(f"{left + 4:.1f}", 20, first.phase, "tick"))
    return parts


def size_bars(sizes: Mapping[str, int]) -> Markup:
    """A bar per kind of content, largest first, with bytes and share of the whole."""
    ordered = sorted(sizes.items(), key=lambda item: -item[1])
    total = sum(sizes.values())
    x = Scale(max(sizes.values(), default=0), 132, WIDTH - 132)
    parts = []
    for i, (name, size) in enumerate(ordered):
        y = 4 + i * 24
        width = float(x(size)) - 132
        share = f"{show(size, 'bytes')} · {size / total:.1%}" if total else show(size, "bytes")
        parts += [
            text(124, y + 13, name, "tick", "end"),
            Markup('<rect x="132" y="{}" width="{:.1f}" height="16" class="s1"/>').format(
                y, max(width, 1.5)
            ),
            text(132 + max(width, 1.5) + 8, y + 13, share, "value"),
        ]
    return svg(8 + 24 * len(ordered), "Size by kind", *parts)
