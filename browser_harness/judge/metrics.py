"""Every figure that a budget can limit: its unit, its direction, how it is read.

``docs/budget.md`` lists them for users; ``python -m browser_harness.judge.docs``
writes that list from here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from browser_harness.judge.statistics import judged, per_second, summarise
from browser_harness.judge.units import Unit
from manifests.agreement import Agreement
from manifests.report import LoadSample, Memory, MemoryPoint, Parity, PrefillSample, TargetReport

Kind = Literal["size", "load", "speed", "memory", "parity", "health"]
Read = Callable[[TargetReport], float | None]


@dataclass(frozen=True)
class Metric:
    """One figure of a target.

    Attributes:
        label: what a person calls it.
        unit: unit of the value and of its limits.
        better: the direction in which the value improves.
        kind: the group in which it is shown.
        statistic: how the samples become one value.
        read: the value, or ``None`` when the report does not hold it.
    """

    label: str
    unit: Unit
    better: Literal["lower", "higher"]
    kind: Kind
    statistic: str
    read: Read

    @property
    def speed_like(self) -> bool:
        """Whether a software adapter makes the value say nothing about a user's machine."""
        return self.kind in ("load", "speed")


def _median(samples: tuple[float, ...]) -> float | None:
    summary = summarise(samples)
    return None if summary is None else summary.median


def _load(samples: tuple[LoadSample, ...]) -> float | None:
    return _median(tuple(sample.timings.total_ms for sample in samples))


def longest_prefill(samples: tuple[PrefillSample, ...]) -> tuple[int, tuple[float, ...]]:
    """The longest prompt's tokens and its judged milliseconds; (0, ()) without samples."""
    longest = max((sample.prompt_tokens for sample in samples), default=0)
    return longest, judged(sample for sample in samples if sample.prompt_tokens == longest)


def _prefill_rate(target: TargetReport) -> float | None:
    tokens, samples = longest_prefill(target.prefill)
    summary = summarise(samples)
    return None if summary is None else per_second(tokens, summary.median)


def _decode_rate(percentile: Literal["median", "p5", "p95"]) -> Read:
    # The 5th percentile of the speed is the 95th percentile of the time.
    ms_of = {"median": "median", "p5": "p95", "p95": "p5"}[percentile]

    def read(target: TargetReport) -> float | None:
        summary = summarise(judged(target.decode))
        return None if summary is None else per_second(1, getattr(summary, ms_of))

    return read


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
        "load_cold_ms": Metric(
            "Cold load", "ms", "lower", "load",
            "median over loads with nothing stored, until the session is ready",
            lambda target: _load(target.cold),
        ),
        "load_warm_ms": Metric(
            "Warm load", "ms", "lower", "load",
            "median over loads from the browser's own storage, until the session is ready",
            lambda target: _load(target.warm),
        ),
        "time_to_first_token_ms": Metric(
            "Time to first token", "ms", "lower", "speed",
            "median over repetitions after warm-up, at the longest prompt",
            lambda target: _median(longest_prefill(target.prefill)[1]),
        ),
        "prefill_tokens_per_second": Metric(
            "Prefill", "tokens/s", "higher", "speed",
            "prompt tokens over the median time to first token, at the longest prompt",
            _prefill_rate,
        ),
        "decode_tokens_per_second": Metric(
            "Decode", "tokens/s", "higher", "speed",
            "median over the tokens of all runs after warm-up",
            _decode_rate("median"),
        ),
        "decode_tokens_per_second_p5": Metric(
            "Decode, 5th percentile", "tokens/s", "higher", "speed",
            "speed that 95 % of the tokens after warm-up reach",
            _decode_rate("p5"),
        ),
        "decode_tokens_per_second_p95": Metric(
            "Decode, 95th percentile", "tokens/s", "higher", "speed",
            "speed that 5 % of the tokens after warm-up reach",
            _decode_rate("p95"),
        ),
        "peak_memory_bytes": Metric(
            "Peak memory", "bytes", "lower", "memory",
            "largest sum of the renderer's and the GPU process's PSS at one moment",
            _memory(_peak_pss),
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
        "console_errors": Metric(
            "Console errors", "messages", "lower", "health",
            "errors that the page wrote to the console",
            lambda target: len(target.console),
        ),
    }
)  # fmt: skip
