"""One table of figures, the targets beside PyTorch, for every kind of report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from browser_harness.judge.accuracy import accuracy, accuracy_interval
from browser_harness.judge.figures import figure as judged_figure
from browser_harness.judge.figures import noise
from browser_harness.judge.intervals import CONFIDENCE
from browser_harness.judge.metrics import METRICS, perplexity_ratio
from browser_harness.judge.paired import DECODE, time_ratio
from browser_harness.judge.statistics import Summary, judged, per_second, summarise
from browser_harness.judge.units import show, show_round
from manifests.agreement import Agreement
from manifests.questions import Answers
from manifests.reference import Speed
from manifests.report import (
    Check,
    Failure,
    PagePair,
    Parity,
    ReferenceSummary,
    Report,
    TargetReport,
)

#: What stands where there is no figure.
NONE = "–"
PYTORCH = "PyTorch"


#: What is lost on the way from the original weights to the browser, step by step.
LOSSES: MappingProxyType[str, Callable[[Parity], Agreement | None]] = MappingProxyType(
    {
        "Compression": lambda parity: parity.compression,
        "Export": lambda parity: parity.export,
        "Runtime": lambda parity: parity.runtime,
    }
)


@dataclass(frozen=True)
class Row:
    """A figure: its name, and one cell per column."""

    label: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Glance:
    """The table: a column per target, one for PyTorch when it was measured, others beside it."""

    columns: tuple[str, ...]
    rows: tuple[Row, ...]


_METRIC_ROWS = (
    "target_bytes",
    "wire_bytes",
    "load_cold_ms",
    "load_warm_ms",
    "peak_memory_bytes",
    "rest_memory_bytes",
    "wasm_heap_bytes",
    "js_heap_bytes",
    "gpu_bytes",
)


_WORK_ROWS = (
    "english_words_per_second",
    "arabic_words_per_second",
    "english_characters_per_second",
    "arabic_characters_per_second",
    "decode_bytes_per_second",
    "bandwidth_share",
    "gpu_time_share",
    "dispatches_per_token",
    "submits_per_token",
    "bind_groups_per_token",
    "read_bytes_per_token",
)


def figure(target: TargetReport, metric: str) -> str:
    """One metric of a target, for a person."""
    known = METRICS[metric]
    value = known.read(target)
    return NONE if value is None else show(value, known.unit)


def answered(answers: Answers | None) -> str:
    """The share of questions answered right, and the interval around it."""
    share = accuracy(answers)
    if answers is None or share is None:
        return NONE
    interval = accuracy_interval(answers)
    return f"{share:.1%} ({interval.low:.1%}–{interval.high:.1%})"


def decode_speed(summary: Summary | None) -> str:
    """Tokens per second from milliseconds per token: median, 5th and 95th percentile."""
    if summary is None:
        return NONE
    # The slowest tokens make the 5th percentile of the speed.
    rates = [per_second(1, ms) for ms in (summary.median, summary.p95, summary.p5)]
    median, p5, p95 = (NONE if r is None else show(r, "tokens/s") for r in rates)
    return f"{median} ({p5.removesuffix(' tok/s')}–{p95.removesuffix(' tok/s')})"


def decode_interval(target: TargetReport) -> str:
    """The confidence interval of the median decode speed."""
    interval = judged_figure(METRICS[DECODE], target).interval
    if interval is None:
        return NONE
    low, high = (show(end, "tokens/s") for end in (interval.low, interval.high))
    return f"{low.removesuffix(' tok/s')}–{high}"


def loss(parity: Parity | None, name: str) -> str:
    """A loss of :data:`LOSSES` in one cell: top-1, KL divergence, perplexity ratio."""
    agreement = None if parity is None else LOSSES[name](parity)
    if agreement is None:
        return NONE
    ratio = perplexity_ratio(agreement)
    cells = [
        show(agreement.top1, "share"),
        show(agreement.kl_mean, "nats"),
        NONE if ratio is None else f"× {show(ratio, 'ratio')}",
    ]
    return ", ".join(cells)


def noise_floor(target: TargetReport) -> str:
    """What the target's two interleaved halves make of each other: the A/A run."""
    found = noise(METRICS[DECODE], target)
    if found is None:
        return NONE
    low, high = found.interval
    return f"× {found.ratio:.3f} ({low:.3f}–{high:.3f})"


def in_turns(pairs: Sequence[PagePair]) -> str:
    """The speed of the new pages over the old ones', with its interval."""
    found = time_ratio(pairs)
    if found is None:
        return NONE
    low, high = found.interval()
    return f"× {1 / found.value:.3f} ({1 / high:.3f}–{1 / low:.3f})"


def first_token(samples: Iterable[float], prompt_tokens: int) -> str:
    """The median time to the first token, and the prefill speed that it means."""
    summary = summarise(tuple(samples))
    if summary is None:
        return NONE
    rate = per_second(prompt_tokens, summary.median)
    speed = "" if rate is None else f" ({show(rate, 'tokens/s')})"
    return show(summary.median, "ms") + speed


def software_notice(report: Report) -> str:
    """What must be said aloud when a target ran on a software adapter; else empty."""
    names = [name for name, target in report.targets.items() if target.software_adapter]
    if not names:
        return ""
    return (
        f"{', '.join(names)} ran on a software WebGPU adapter. Answers are judged; speed and "
        "load times are not, for they say nothing about a GPU."
    )


def diagnosis_hint(report: Report) -> str:
    """What to do where the browser computes otherwise than PyTorch; empty where it does not."""
    broken = [
        check.target
        for check in (report.verdict.checks if report.verdict else ())
        if check.outcome in ("fail", "warn") and METRICS[check.metric].label.startswith("Runtime")
    ]
    if not broken:
        return ""
    return (
        "The runtime loss breaks its limit: 'tabwright diagnose BUNDLE --checkpoint CHECKPOINT "
        f"--target {broken[0]}' names the first tensor that differs."
    )


def failures(report: Report) -> list[tuple[str, Failure]]:
    """Every target that failed, and why."""
    return [(name, t.failure) for name, t in report.targets.items() if t.failure is not None]


def failed_turns(report: Report) -> list[tuple[str, Failure]]:
    """Every target whose pages in turns came to no end, and why."""
    return [
        (f"{name}, in turns,", t.beside_failure)
        for name, t in report.targets.items()
        if t.beside_failure is not None
    ]


def verdict_counts(report: Report) -> str:
    """How many targets failed and checks ended how, e.g. ``12 passed, 1 failed``."""
    if report.verdict is None:
        return "no budget was given"
    words = {"pass": "passed", "warn": "warned", "fail": "failed", "inconclusive": "inconclusive"}
    outcomes = [check.outcome for check in report.verdict.checks]
    failed = len(report.verdict.failed_targets)
    counts = [f"{failed} target{'s' if failed > 1 else ''} failed"] if failed else []
    counts += [f"{outcomes.count(key)} {word}" for key, word in words.items() if key in outcomes]
    return ", ".join(counts)


def verdict_line(report: Report) -> str:
    """The verdict and its counts, e.g. ``FAIL: 12 passed, 1 failed``."""
    outcome = report.verdict.outcome.upper() if report.verdict else "NOT JUDGED"
    return f"{outcome}: {verdict_counts(report)}"


def by_target(report: Report) -> dict[str, list[Check]]:
    """The verdict's checks per target, in the budget's order; empty when not judged."""
    grouped: dict[str, list[Check]] = {}
    for check in report.verdict.checks if report.verdict else ():
        grouped.setdefault(check.target, []).append(check)
    return grouped


_STATISTICS = {"median": "", "p95": "95 %: ", "lower_bound": "lower bound: "}


def limit(check: Check) -> str:
    """A check's bound, for a person."""
    which = _STATISTICS[check.statistic]
    if check.bound == "regression":
        return f"{which}at most {100 * check.limit:.3g} % worse"
    sign = {"min": "≥", "max": "≤"}[check.bound]
    if check.of == "reference":
        return f"{which}{sign} {check.limit:g} × PyTorch"
    if check.of == "original":
        return f"{which}{sign} {check.limit:g} × original"
    return f"{which}{sign} {show_round(check.limit, METRICS[check.metric].unit)}"


def measured(check: Check) -> str:
    """A check's value, for a person."""
    return NONE if check.value is None else show(check.value, METRICS[check.metric].unit)


def baseline_line(report: Report) -> str:
    """What was compared with; empty where nothing was."""
    if report.verdict is None or report.verdict.baseline is None:
        return ""
    against, confidence = report.verdict.baseline, report.verdict.confidence
    interval = "" if confidence is None else f", with its {confidence:.0%} interval"
    return (
        f"Compared with {against.bundle}, seal {against.seal[:8]}, measured {against.created}; "
        f"× is this report's figure over the baseline's{interval}."
    )


def glance(report: Report) -> Glance:
    """Every headline figure of ``report``, the targets side by side."""
    targets = list(report.targets.values())
    speed = engines(report.reference)
    rows = [
        _row(METRICS[metric].label, [figure(t, metric) for t in targets], speed, metric)
        for metric in _METRIC_ROWS
    ]
    for tokens in sorted({sample.prompt_tokens for t in targets for sample in t.prefill}):
        cells = [
            first_token(judged(s for s in t.prefill if s.prompt_tokens == tokens), tokens)
            for t in targets
        ]
        label = f"First token after {tokens} (prefill)"
        rows.append(_row(label, cells, speed, f"prefill {tokens}"))
    decode = [decode_speed(summarise(judged(t.decode))) for t in targets]
    rows.append(_row("Decode, median (5 to 95 %)", decode, speed, "decode"))
    rows += [
        _row(f"A token's time over {name}'s", [_cost(t, outside) for t in targets], speed, "")
        for name, outside in speed.items()
    ]
    known = [decode_interval(t) for t in targets]
    rows.append(_row(f"Decode, {CONFIDENCE:.0%} interval of the median", known, speed, ""))
    floors = [noise_floor(t) for t in targets]
    rows.append(_row("Decode, noise floor (A/A)", floors, speed, ""))
    turns = {
        "Decode in turns (A B B A)": [
            in_turns(t.beside.pairs if t.beside else ()) for t in targets
        ],
        "Decode, A/A in turns": [in_turns(t.beside.noise if t.beside else ()) for t in targets],
    }
    rows += [_row(label, cells, speed, "") for label, cells in turns.items()]
    rows += [
        _row(
            f"{name} loss: top-1, KL, perplexity",
            [loss(t.parity, name) for t in targets],
            speed,
            "",
        )
        for name in LOSSES
    ]
    rows += [
        _row(METRICS[metric].label, [figure(t, metric) for t in targets], speed, metric)
        for metric in _WORK_ROWS
    ]
    right = [answered(t.questions) for t in targets]
    torch = next((t.reference_questions for t in targets if t.reference_questions), None)
    label = f"Questions answered right ({CONFIDENCE:.0%} interval)"
    native = [NONE] * (len(speed) - 1)
    rows.append(Row(label, (*right, *((answered(torch), *native) if speed else ()))))
    if native and report.reference is not None:
        torch_threads = report.reference.device.threads
        told = [torch_threads, *(engine.threads for engine in report.reference.native)]
        rows.append(
            Row("CPU threads", tuple(str(n) for n in (*(t.threads for t in targets), *told)))
        )
    columns = (*report.targets, *speed)
    return Glance(columns, tuple(row for row in rows if set(row.cells) != {NONE}))


def engines(reference: ReferenceSummary | None) -> dict[str, Speed]:
    """What was measured outside the browser, by its column's name; PyTorch is the first."""
    if reference is None:
        return {}
    native = {f"{each.engine} {each.version}": each.speed for each in reference.native}
    return {PYTORCH: reference.speed, **native}


def _cost(target: TargetReport, outside: Speed) -> str:
    """How many times as long a token takes in the browser."""
    inside, beside = summarise(judged(target.decode)), summarise(outside.decode_ms)
    if inside is None or beside is None or target.software_adapter or beside.median == 0:
        return NONE
    return f"× {inside.median / beside.median:.2f}"


def _row(label: str, cells: list[str], outside: dict[str, Speed], key: str) -> Row:
    return Row(label, (*cells, *(_reference_cell(speed, key) for speed in outside.values())))


def _reference_cell(speed: Speed, key: str) -> str:
    """The figure of the row ``key`` outside the browser; a dash where there is none."""
    if key == "load_warm_ms":
        return show(speed.load_ms, "ms")
    if key == "peak_memory_bytes":
        return show(speed.peak_bytes, "bytes")
    if key == "decode":
        return decode_speed(summarise(speed.decode_ms))
    for sample in speed.prefill:
        if key == f"prefill {sample.prompt_tokens}":
            return first_token(sample.ms, sample.prompt_tokens)
    return NONE
