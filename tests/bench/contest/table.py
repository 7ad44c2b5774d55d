"""The contest's samples as Markdown: a row per side, and ours against each, round by round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from types import MappingProxyType

import numpy as np

from manifests.base import Schema
from tests.bench.contest.sides import Side
from tests.bench.contest.visits import Facts, Visit

#: A perplexity that is worse by more than this share is marked.
TOLERANCE = 0.01
MARK = "†"
NONE = "–"


class Result(Schema):
    """A side's facts, and its visits in the order of the rounds."""

    name: str
    threads: int
    facts: Facts
    visits: tuple[Visit, ...]


def decode_speed(visit: Visit) -> float:
    """Tokens per second after the first."""
    return (len(visit.at_ms) - 1) * 1e3 / (visit.at_ms[-1] - visit.at_ms[0])


def _first_token(visit: Visit) -> float:
    return statistics.median(visit.prompt_ms)


def _answer(visit: Visit) -> float:
    return _or_nan(visit.answer_ms)


def _cold(visit: Visit) -> float:
    return _or_nan(visit.cold_ms)


def _or_nan(ms: float | None) -> float:
    return float("nan") if ms is None else ms


def _warm(visit: Visit) -> float:
    return visit.warm_ms


#: What is compared, each so that more is better for us.
_RATIOS: MappingProxyType[str, Callable[[Visit, Visit], float]] = MappingProxyType(
    {
        "decode": lambda ours, other: decode_speed(ours) / decode_speed(other),
        "prefill": lambda ours, other: _first_token(other) / _first_token(ours),
        "first answer": lambda ours, other: _answer(other) / _answer(ours),
        "cold load": lambda ours, other: _cold(other) / _cold(ours),
        "warm load": lambda ours, other: _warm(other) / _warm(ours),
    }
)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % interval of the median, from 10,000 resamples."""
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(list(values), (10_000, len(values))), axis=1)
    low, high = np.percentile(medians, [2.5, 97.5])
    return float(low), float(high)


def results_table(sides: Sequence[Side], results: Sequence[Result], prompt: int) -> list[str]:
    """A row per side; medians, with the interval of the decode speed's."""
    head = ["", "threads", "download", "cold load", "warm load", "first answer"]
    head += [f"first token of {prompt}", "prefill", "decode", "peak memory", "perplexity"]
    calls = ["dispatches", "submits", "bind_groups", "read_bytes"]
    on_gpu = any(result.facts.calls for result in results)
    if on_gpu:
        head += [f"{name.replace('_', ' ')} a token" for name in calls]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    best = results[0].facts.perplexity
    for side, result in zip(sides, results, strict=True):
        cells = [side.name, str(side.threads), *_cells(result, prompt)]
        cells.append(_perplexity(side, result.facts.perplexity, best))
        if on_gpu:
            counted = result.facts.calls or {}
            cells += [f"{counted[name]:,.0f}" if name in counted else NONE for name in calls]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _cells(result: Result, prompt: int) -> list[str]:
    visits, facts = result.visits, result.facts
    speeds = [decode_speed(visit) for visit in visits]
    low, high = bootstrap(speeds)
    first = statistics.median(map(_first_token, visits))
    cold = statistics.median(map(_cold, visits))
    answer = statistics.median(map(_answer, visits))
    return [
        NONE if facts.download_bytes is None else f"{facts.download_bytes / 1e6:.1f} MB",
        NONE if np.isnan(cold) else f"{cold / 1e3:.2f} s",
        f"{statistics.median(map(_warm, visits)) / 1e3:.2f} s",
        NONE if np.isnan(answer) else f"{answer:.0f} ms",
        f"{first:.0f} ms",
        f"{prompt * 1e3 / first:.3g}",
        f"{statistics.median(speeds):.3g} ({low:.3g}-{high:.3g})",
        f"{facts.peak_bytes / 1e6:.0f} MB",
    ]


def _perplexity(side: Side, value: float | None, ours: float | None) -> str:
    if value is None:
        return "n/a" if side.no_perplexity else NONE
    worse = ours is not None and value > ours * (1 + TOLERANCE)
    return f"{value:.2f}{MARK if worse else ''}"


def ratios_table(results: Sequence[Result], names: Sequence[str]) -> list[str]:
    """Ours, the first, against each of the others within every round."""
    ours, *others = results
    head = ["", "threads", *_RATIOS]
    lines = [f"| {' | '.join(head)} |", f"|{' --- |' * len(head)}"]
    for name, other in zip(names[1:], others, strict=True):
        cells = [f"against {name}", str(other.threads)]
        for ratio in _RATIOS.values():
            values = [ratio(a, b) for a, b in zip(ours.visits, other.visits, strict=True)]
            if np.isnan(values).any():
                cells.append(NONE)
                continue
            low, high = bootstrap(values)
            cells.append(f"**{statistics.median(values):.2f}** ({low:.2f}-{high:.2f})")
        lines.append(f"| {' | '.join(cells)} |")
    return lines
