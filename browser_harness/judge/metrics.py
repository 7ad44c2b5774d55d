"""Every figure that a budget can limit: its unit, its direction, how it is read.

``docs/budget.md`` lists them for users; ``python -m browser_harness.judge.docs``
writes that list from here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from browser_harness.judge.accuracy import accuracy
from browser_harness.judge.statistics import by_visit, per_second, summarise
from browser_harness.judge.units import Unit
from manifests.agreement import Agreement
from manifests.reference import Speed
from manifests.report import (
    LoadSample,
    Memory,
    MemoryPoint,
    Parity,
    PrefillSample,
    TargetReport,
)

Kind = Literal["size", "load", "speed", "memory", "parity", "health"]
Read = Callable[[TargetReport], float | None]


@dataclass(frozen=True)
class Samples:
    """What a figure is made of.

    Attributes:
        visits: milliseconds by fresh page, warm-up left out.
        count: how many things each sample is the time of, and the figure is things per
            second; ``None`` where the figure is the time itself.
    """

    visits: tuple[tuple[float, ...], ...]
    count: float | None = None

    def figure(self, ms: float) -> float | None:
        """The figure that ``ms`` milliseconds mean."""
        return ms if self.count is None else per_second(self.count, ms)


@dataclass(frozen=True)
class Metric:
    """One figure of a target.

    Attributes:
        label: what a person calls it.
        unit: unit of the value and of its limits.
        better: the direction in which the value improves.
        kind: the group in which it is shown.
        statistic: how the samples become one value.
        source: the samples, or the value where it is one exact number.
        reference: PyTorch's own figure of the same thing, where it has one.
        original: the uncompressed model's.
    """

    label: str
    unit: Unit
    better: Literal["lower", "higher"]
    kind: Kind
    statistic: str
    source: Callable[[TargetReport], Samples | float | None]
    reference: Callable[[TargetReport, Speed], float | None] | None = None
    original: Read | None = None

    @property
    def speed_like(self) -> bool:
        """Whether the value is made of timed samples, which a software adapter spoils."""
        return self.kind in ("load", "speed")

    def read(self, target: TargetReport) -> float | None:
        """The value, at the samples' median; ``None`` when the report does not hold it."""
        found = self.source(target)
        if not isinstance(found, Samples):
            return found
        median = _median(tuple(ms for visit in found.visits for ms in visit))
        return None if median is None else found.figure(median)

    def worsening(self, ratio: float) -> float:
        """The logarithm of ``ratio`` (new over old), positive for a change for the worse."""
        log = math.log(ratio) if ratio > 0 else -math.inf
        return log if self.better == "lower" else -log


def _median(samples: tuple[float, ...]) -> float | None:
    summary = summarise(samples)
    return None if summary is None else summary.median


def _load(samples: tuple[LoadSample, ...]) -> Samples:
    return Samples(tuple((sample.timings.total_ms,) for sample in samples))


def _longest(samples: tuple[PrefillSample, ...]) -> tuple[int, list[PrefillSample]]:
    """The longest prompt's tokens, and what was taken at it."""
    longest = max((sample.prompt_tokens for sample in samples), default=0)
    return longest, [sample for sample in samples if sample.prompt_tokens == longest]


def _first_token(target: TargetReport) -> Samples:
    return Samples(by_visit(_longest(target.prefill)[1]))


def _prefill(target: TargetReport) -> Samples:
    tokens, samples = _longest(target.prefill)
    return Samples(by_visit(samples), tokens)


def _torch_first_token(target: TargetReport, speed: Speed) -> float | None:
    longest, _ = _longest(target.prefill)
    return _median(
        tuple(ms for sample in speed.prefill if sample.prompt_tokens == longest for ms in sample.ms)
    )


def _torch_prefill(target: TargetReport, speed: Speed) -> float | None:
    ms = _torch_first_token(target, speed)
    return None if ms is None else per_second(_longest(target.prefill)[0], ms)


def _torch_decode(_target: TargetReport, speed: Speed) -> float | None:
    ms = _median(speed.decode_ms)
    return None if ms is None else per_second(1, ms)


def _size_of_fp16(target: TargetReport) -> float | None:
    return target.target_bytes / target.fp16_bytes if target.fp16_bytes else None


def _memory(read: Callable[[Memory], float | None]) -> Read:
    return lambda target: None if target.memory is None else read(target.memory)


def _pss(look: MemoryPoint | None) -> float | None:
    # No process at all was seen: that is no figure, and must not pass for a small one.
    return (look.renderer_pss + look.gpu_process_pss or None) if look else None


def _peak_pss(memory: Memory) -> float | None:
    # The largest sum, not the sum of the largest: the two processes peak at different times.
    looks = memory.timeline or (memory.peak,)
    return max((size for look in looks if (size := _pss(look)) is not None), default=None)


def _parity(read: Callable[[Parity], float | None]) -> Read:
    return lambda target: None if target.parity is None else read(target.parity)


def _compression(read: Callable[[Agreement], float | None]) -> Read:
    return _parity(lambda parity: None if parity.compression is None else read(parity.compression))


def perplexity_ratio(agreement: Agreement) -> float | None:
    """Measured perplexity over the reference's; ``None`` when the latter is 0."""
    reference = agreement.perplexity_reference
    return agreement.perplexity / reference if reference else None


def _tokens_equal(parity: Parity) -> float | None:
    checks = parity.tokens + parity.chats
    return sum(check.equal for check in checks) / len(checks) if checks else None


def _greedy_equal(parity: Parity) -> float | None:
    checks = parity.greedy
    same = sum(check.outcome != "diverged" for check in checks)
    return same / len(checks) if checks else None


METRICS: MappingProxyType[str, Metric] = MappingProxyType(
    {
        "target_bytes": Metric(
            "Size of the target", "bytes", "lower", "size",
            "every file that a load of the target verifies", lambda target: target.target_bytes,
        ),
        "wire_bytes": Metric(
            "Bytes on the wire", "bytes", "lower", "size",
            "median over cold loads",
            lambda target: _median(tuple(float(load.bytes_on_wire) for load in target.cold)),
        ),
        "size_of_fp16": Metric(
            "Size against fp16", "ratio", "lower", "size",
            "size of the target over two bytes per parameter", _size_of_fp16,
        ),
        "load_cold_ms": Metric(
            "Cold load", "ms", "lower", "load",
            "median over loads with nothing stored, until the session is ready",
            lambda target: _load(target.cold),
        ),
        "load_warm_ms": Metric(
            "Warm load", "ms", "lower", "load",
            "median over loads from the browser's own storage, until the session is ready",
            lambda target: _load(target.warm), lambda _target, speed: speed.load_ms,
        ),
        "time_to_first_token_ms": Metric(
            "Time to first token", "ms", "lower", "speed",
            "median over repetitions after warm-up, at the longest prompt",
            _first_token, _torch_first_token,
        ),
        "prefill_tokens_per_second": Metric(
            "Prefill", "tokens/s", "higher", "speed",
            "prompt tokens over the median time to first token, at the longest prompt",
            _prefill, _torch_prefill,
        ),
        "decode_tokens_per_second": Metric(
            "Decode", "tokens/s", "higher", "speed",
            "one token over the median time of a token, all runs after warm-up",
            lambda target: Samples(by_visit(target.decode), 1), _torch_decode,
        ),
        "peak_memory_bytes": Metric(
            "Peak memory", "bytes", "lower", "memory",
            "largest sum of the renderer's and the GPU process's PSS at one moment",
            _memory(_peak_pss), lambda _target, speed: speed.peak_bytes,
        ),
        "rest_memory_bytes": Metric(
            "Memory at rest", "bytes", "lower", "memory",
            "the renderer's and the GPU process's PSS after the run",
            _memory(lambda memory: _pss(memory.rest)),
        ),
        "wasm_heap_bytes": Metric(
            "WASM heap", "bytes", "lower", "memory",
            "largest size; the heap never shrinks",
            _memory(lambda memory: memory.peak.wasm_heap),
        ),
        "js_heap_bytes": Metric(
            "JS heap", "bytes", "lower", "memory",
            "largest size seen", _memory(lambda memory: memory.peak.js_heap),
        ),
        "gpu_bytes": Metric(
            "GPU buffers", "bytes", "lower", "memory",
            "largest sum of live GPU buffers", _memory(lambda memory: memory.peak.gpu_buffers),
        ),
        "runtime_top1": Metric(
            "Runtime loss: top-1 agreement", "share", "higher", "parity",
            "share of scored positions with the same most likely token; near-ties agree",
            _parity(lambda parity: parity.runtime.top1),
        ),
        "runtime_max_abs_logit": Metric(
            "Runtime loss: largest logit difference", "logits", "lower", "parity",
            "maximum over positions and vocabulary",
            _parity(lambda parity: parity.runtime.max_abs_logit),
        ),
        "runtime_kl_mean": Metric(
            "Runtime loss: KL divergence", "nats", "lower", "parity",
            "mean over scored positions of KL(PyTorch || browser)",
            _parity(lambda parity: parity.runtime.kl_mean),
        ),
        "perplexity_ratio": Metric(
            "Runtime loss: perplexity ratio", "ratio", "lower", "parity",
            "the browser's perplexity over PyTorch's, same weights and text",
            _parity(lambda parity: perplexity_ratio(parity.runtime)),
        ),
        "scored_positions": Metric(
            "Scored positions", "positions", "higher", "parity",
            "teacher-forced positions compared in the browser",
            _parity(lambda parity: parity.runtime.positions),
        ),
        "export_top1": Metric(
            "Export loss: top-1 agreement", "share", "higher", "parity",
            "share of scored positions with the same most likely token; near-ties agree",
            _parity(lambda parity: parity.export.top1),
        ),
        "export_max_abs_logit": Metric(
            "Export loss: largest logit difference", "logits", "lower", "parity",
            "maximum over positions and vocabulary",
            _parity(lambda parity: parity.export.max_abs_logit),
        ),
        "export_kl_mean": Metric(
            "Export loss: KL divergence", "nats", "lower", "parity",
            "mean over scored positions of KL(checkpoint || bundle)",
            _parity(lambda parity: parity.export.kl_mean),
        ),
        "export_perplexity_ratio": Metric(
            "Export loss: perplexity ratio", "ratio", "lower", "parity",
            "the bundle's perplexity over the checkpoint's, both in PyTorch",
            _parity(lambda parity: perplexity_ratio(parity.export)),
        ),
        "compression_top1": Metric(
            "Compression loss: top-1 agreement", "share", "higher", "parity",
            "share of scored positions with the same most likely token; near-ties agree",
            _compression(lambda loss: loss.top1),
        ),
        "compression_kl_mean": Metric(
            "Compression loss: KL divergence", "nats", "lower", "parity",
            "mean over scored positions of KL(original || checkpoint)",
            _compression(lambda loss: loss.kl_mean),
        ),
        "compression_perplexity_ratio": Metric(
            "Compression loss: perplexity ratio", "ratio", "lower", "parity",
            "the checkpoint's perplexity over the original's, both in PyTorch",
            _compression(perplexity_ratio),
        ),
        "token_ids_equal": Metric(
            "Token ids equal", "share", "higher", "parity",
            "share of texts and conversations with transformers' token ids",
            _parity(_tokens_equal),
        ),
        "greedy_equal": Metric(
            "Greedy continuations equal", "share", "higher", "parity",
            "share of continuations that are PyTorch's, or leave it at a near-tie",
            _parity(_greedy_equal),
        ),
        "question_accuracy": Metric(
            "Questions answered right", "share", "higher", "parity",
            "share of the questions of --tasks; PyTorch's is the checkpoint's, the original's "
            "is the uncompressed model's",
            lambda target: accuracy(target.questions),
            lambda target, _speed: accuracy(target.reference_questions),
            lambda target: accuracy(target.original_questions),
        ),
        "console_errors": Metric(
            "Console errors", "messages", "lower", "health",
            "errors that the page wrote to the console",
            lambda target: len(target.console),
        ),
    }
)  # fmt: skip
