"""How figures of loads, speed, memory and parity are read from a target's report."""

from __future__ import annotations

from collections.abc import Callable

from browser_harness.judge.samples import Samples
from browser_harness.judge.statistics import by_visit, per_second, summarise
from manifests.reference import Speed
from manifests.report import (
    LoadSample,
    Memory,
    MemoryPoint,
    Parity,
    PrefillSample,
    TargetReport,
)

Read = Callable[[TargetReport], float | None]


def median_of(samples: tuple[float, ...]) -> float | None:
    """The median; ``None`` of nothing."""
    summary = summarise(samples)
    return None if summary is None else summary.median


def load_times(samples: tuple[LoadSample, ...]) -> Samples:
    """Milliseconds until the session is ready, a page each."""
    return Samples(tuple((sample.timings.total_ms,) for sample in samples))


def _at_longest(samples: tuple[PrefillSample, ...]) -> tuple[int, list[PrefillSample]]:
    """The longest prompt's tokens, and what was taken at it."""
    longest = max((sample.prompt_tokens for sample in samples), default=0)
    return longest, [sample for sample in samples if sample.prompt_tokens == longest]


def first_token(target: TargetReport) -> Samples:
    """Milliseconds to the first token at the longest prompt."""
    return Samples(by_visit(_at_longest(target.prefill)[1]))


def prefill(target: TargetReport) -> Samples:
    """Prompt tokens a second at the longest prompt."""
    tokens, samples = _at_longest(target.prefill)
    return Samples(by_visit(samples), tokens)


def torch_first_token(target: TargetReport, speed: Speed) -> float | None:
    """PyTorch's median milliseconds to the first token at the same prompt."""
    longest, _ = _at_longest(target.prefill)
    return median_of(
        tuple(ms for sample in speed.prefill if sample.prompt_tokens == longest for ms in sample.ms)
    )


def torch_prefill(target: TargetReport, speed: Speed) -> float | None:
    """PyTorch's prompt tokens a second at the same prompt."""
    ms = torch_first_token(target, speed)
    return None if ms is None else per_second(_at_longest(target.prefill)[0], ms)


def torch_decode(_target: TargetReport, speed: Speed) -> float | None:
    """PyTorch's tokens a second."""
    ms = median_of(speed.decode_ms)
    return None if ms is None else per_second(1, ms)


def memory(read: Callable[[Memory], float | None]) -> Read:
    """``read`` of a target whose memory was watched."""
    return lambda target: None if target.memory is None else read(target.memory)


def pss(look: MemoryPoint | None) -> float | None:
    """Bytes of both processes at one look."""
    # No process at all was seen: that is no figure, and must not pass for a small one.
    return (look.renderer_pss + look.gpu_process_pss or None) if look else None


def peak_pss(memory: Memory) -> float | None:
    """Bytes of both processes at the look where their sum was largest."""
    # The largest sum, not the sum of the largest: the two processes peak at different times.
    looks = memory.timeline or (memory.peak,)
    return max((size for look in looks if (size := pss(look)) is not None), default=None)


def parity(read: Callable[[Parity], float | None]) -> Read:
    """``read`` of a target whose answers were compared."""
    return lambda target: None if target.parity is None else read(target.parity)


def tokens_equal(parity: Parity) -> float | None:
    """The share of texts and conversations with transformers' ids."""
    checks = parity.tokens + parity.chats
    return sum(check.equal for check in checks) / len(checks) if checks else None


def round_trip_equal(parity: Parity) -> float | None:
    """Share of texts that come back from their ids as they do in transformers."""
    checks = [check for check in parity.tokens if check.round_trip is not None]
    same = sum(check.round_trip != "differs" for check in checks)
    return same / len(checks) if checks else None


def greedy_equal(parity: Parity) -> float | None:
    """The share of continuations that do not leave PyTorch's but at a near-tie."""
    checks = parity.greedy
    same = sum(check.outcome != "diverged" for check in checks)
    return same / len(checks) if checks else None
