"""Decoding against what bounds it: bytes moved, calls made, and text instead of tokens."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

from browser_harness.judge.samples import Samples
from browser_harness.judge.statistics import by_visit
from manifests.report import TargetReport
from manifests.work import TextYield

Read = Callable[[TargetReport], float | None]
Source = Callable[[TargetReport], Samples | float | None]


def bytes_per_token(target: TargetReport) -> float | None:
    """Bytes that a token read, in the middle of the runs that decode speed was judged by."""
    work, runs = target.work, [run for run in target.decode if len(run.ms) > run.warmup]
    if work is None or not runs:
        return None
    before = median(run.prompt_tokens + (run.warmup + len(run.ms)) / 2 for run in runs)
    return work.weight_bytes + work.state_bytes + before * work.state_bytes_per_position


def bandwidth(target: TargetReport) -> float | None:
    """Bytes a second that a plain loop moves on this device: the median after warm-up."""
    found = target.bandwidth
    if found is None or len(found.ms) <= found.warmup:
        return None
    ms = median(found.ms[found.warmup :])
    return 1000 * found.bytes / ms if ms > 0 else None


def achieved(target: TargetReport) -> Samples | None:
    """Bytes a second that decoding reads."""
    size = bytes_per_token(target)
    return None if size is None else Samples(by_visit(target.decode), size)


def share_of_bandwidth(target: TargetReport) -> Samples | None:
    """What decoding reads, as a share of what the plain loop moves."""
    size, most = bytes_per_token(target), bandwidth(target)
    if size is None or most is None:
        return None
    return Samples(by_visit(target.decode), size / most)


def calls_per_token(name: str) -> Read:
    """What a decoded token asks of the GPU, on average, by a field of GpuCalls."""

    def read(target: TargetReport) -> float | None:
        runs = [run for run in target.decode if run.calls is not None and run.ms]
        tokens = sum(len(run.ms) for run in runs)
        return sum(getattr(run.calls, name) for run in runs) / tokens if runs else None

    return read


def gpu_share(target: TargetReport) -> float | None:
    """The share of decoding's time in which compute passes kept the GPU busy."""
    found = target.gpu_time
    return found.gpu_ms / found.wall_ms if found and found.wall_ms > 0 else None


def text_per_second(language: str, per_token: Callable[[TextYield], float]) -> Source:
    """Decode speed in what a reader of ``language`` counts."""

    def source(target: TargetReport) -> Samples | None:
        texts = [text for text in target.texts if text.language == language and text.tokens]
        if not texts:
            return None
        return Samples(by_visit(target.decode), per_token(texts[0]))

    return source
