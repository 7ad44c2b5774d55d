"""What each sweep found, as sentences: the same on a terminal and in the page."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from browser_harness.judge.growth import SMALLEST, Shape, sweep_shape
from browser_harness.judge.intervals import CONFIDENCE
from browser_harness.judge.leaks import growths
from browser_harness.judge.units import show
from manifests.report import TargetReport
from manifests.sweeps import ConditionLoad, ContextSweep, LeakSweep, PromptSample, Sweeps

#: More pauses than this share of the positions are the machine's, not the loop's.
_MANY_PAUSES = 0.01
#: Steps and pauses that are told one by one.
_TOLD = 3


def sweep_findings(target: TargetReport) -> tuple[tuple[str, str], ...]:
    """A name and a sentence for memory at rest and for each sweep of ``target``."""
    sweeps = target.sweeps or Sweeps()
    found = [
        ("Memory at rest", memory_sentence(target)),
        ("Context", context_sentence(sweeps.context) if sweeps.context else ""),
        ("Prompts", prompts_sentence(sweeps.prompts)),
        *((f"Load, {name}", sentence) for name, sentence in load_sentences(sweeps.loads)),
        ("Leaks", leaks_sentence(sweeps.leaks) if sweeps.leaks else ""),
    ]
    return tuple((name, sentence) for name, sentence in found if sentence)


def memory_sentence(target: TargetReport) -> str:
    """What was held at rest by purpose, the prediction's error, and what nobody explains."""
    ledger, memory = target.ledger, target.memory
    if ledger is None or memory is None or memory.rest is None:
        return ""
    need, rest = ledger.predicted, memory.rest
    error = f"{ledger.held / need.total - 1:+.1%} of the {show(need.total, 'bytes')} predicted"
    if need.place == "wasm":
        known = (rest.wasm_heap or 0) + (rest.js_heap or 0)
        own = show(max(0, rest.renderer_pss - known), "bytes")
        return (
            f"WASM heap {show(ledger.held, 'bytes')}, {error} at {need.context:,} positions; "
            f"renderer PSS {show(rest.renderer_pss, 'bytes')}, of which {own} is in neither heap"
        )
    parts = (
        ("weights", ledger.gpu_weights),
        ("cache", ledger.gpu_states),
        ("activations", ledger.gpu_activations),
        ("other", ledger.gpu_other),
    )
    told = ", ".join(f"{name} {show(size, 'bytes')}" for name, size in parts if size is not None)
    return (
        f"GPU buffers {show(ledger.held, 'bytes')} ({told}), {error} at {need.context:,} "
        f"positions; GPU process PSS {show(rest.gpu_process_pss, 'bytes')}"
    )


def context_sentence(sweep: ContextSweep) -> str:
    """Growth, steps and pauses on the way to a long context."""
    reached = sweep.prompt_tokens + 1 + min(len(run) for run in sweep.runs)
    pages = f"{len(sweep.runs)} page{'s' if len(sweep.runs) > 1 else ''}"
    cut = f", of {sweep.length:,} asked for," if reached < sweep.length else ""
    head = f"to position {reached:,}{cut} in {pages}"
    found = sweep_shape(sweep)
    if found is None:
        return f"{head}: too few tokens to tell growth or steps"
    low, high = (f"{100 * end:+.1f}" for end in found.interval)
    growth = (
        f"{100 * found.per_thousand:+.1f} % per 1,000 positions "
        f"({CONFIDENCE:.0%}: {low} to {high} %)"
    )
    verdict = "it grows" if found.grows else f"no growth beyond chance and {SMALLEST:.0%}"
    return (
        f"{head}: {show(found.start, 'ms')} a token at first, {growth}: {verdict}; "
        f"{_steps(found)}; {_pauses(found, reached)}"
    )


def _steps(found: Shape) -> str:
    if not found.steps:
        return "no step"
    told = ", ".join(f"× {step.ratio:.2f} near {step.at:,}" for step in found.steps[:_TOLD])
    return f"{len(found.steps)} step{'s' if len(found.steps) > 1 else ''}: {told}"


def _pauses(found: Shape, reached: int) -> str:
    if not found.pauses:
        return "no pause"
    longest = sorted(found.pauses, key=lambda pause: -pause.ms)
    told = ", ".join(f"{show(pause.ms, 'ms')} at {pause.at:,}" for pause in longest[:_TOLD])
    count = f"{len(found.pauses)} pause{'s' if len(found.pauses) > 1 else ''}"
    if len(found.pauses) > _MANY_PAUSES * reached:
        return f"{count}, more than a loop makes: this machine was busy"
    return f"{count}: {told}"


def prompts_sentence(samples: Sequence[PromptSample]) -> str:
    """The median time to the first token at the shortest and longest prompt."""
    times = [
        (sample.prompt_tokens, median(sample.ms[sample.warmup :]))
        for sample in sorted(samples, key=lambda sample: sample.prompt_tokens)
        if len(sample.ms) > sample.warmup
    ]
    if not times:
        return ""
    ends = (times[0], times[-1]) if len(times) > 1 else (times[0],)
    told = ", ".join(f"{show(ms, 'ms')} after {tokens:,}" for tokens, ms in ends)
    best = max(times, key=lambda each: each[0] / max(each[1], 1e-3))
    rate = show(1000 * best[0] / max(best[1], 1e-3), "tokens/s")
    return f"first token {told}; most of a prompt a second at {best[0]:,} tokens: {rate}"


def load_sentences(loads: Sequence[ConditionLoad]) -> list[tuple[str, str]]:
    """Per condition: the median load, split into its parts."""
    found = []
    for condition in dict.fromkeys(load.condition for load in loads):
        samples = sorted(
            (load for load in loads if load.condition == condition),
            key=lambda load: load.timings.total_ms + load.first_token_ms,
        )
        typical = samples[(len(samples) - 1) // 2]
        times = typical.timings
        parts = (
            ("download", times.fetch_ms),
            ("digests", times.verify_ms),
            ("store", times.store_ms),
            ("session", times.session_ms),
            ("first token", typical.first_token_ms),
        )
        name = f"{condition} ({typical.network})" if typical.network else condition
        told = ", ".join(f"{part} {show(ms, 'ms')}" for part, ms in parts)
        whole = show(times.total_ms + typical.first_token_ms, "ms")
        count = f"median of {len(samples)}" if len(samples) > 1 else "one load"
        wire = show(typical.bytes_on_wire, "bytes")
        found.append((name, f"{whole} ({count}), {wire} on the wire: {told}"))
    return found


def leaks_sentence(sweep: LeakSweep) -> str:
    """What grows with every load and release."""
    found = growths(sweep)
    judged = len(sweep.cycles) - sweep.warmup
    if not found:
        return f"{judged} cycles are too few to tell"
    leaks = [
        f"{each.name} {show(each.per_cycle, 'bytes')} a cycle "
        f"({show(each.interval.low, 'bytes')} to {show(each.interval.high, 'bytes')})"
        for each in found
        if each.leaks
    ]
    if leaks:
        return f"LEAK over {judged} loads and releases: {'; '.join(leaks)}"
    names = ", ".join(each.name for each in found)
    return f"no growth beyond chance over {judged} loads and releases: {names}"
