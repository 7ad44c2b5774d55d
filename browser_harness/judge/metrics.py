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
from browser_harness.judge.growth import Shape, sweep_shape
from browser_harness.judge.leaks import growths
from browser_harness.judge.reading import (
    Read,
    first_token,
    greedy_equal,
    load_times,
    median_of,
    memory,
    parity,
    peak_pss,
    prefill,
    pss,
    round_trip_equal,
    tokens_equal,
    torch_decode,
    torch_first_token,
    torch_prefill,
)
from browser_harness.judge.samples import Samples
from browser_harness.judge.statistics import by_visit
from browser_harness.judge.units import Unit
from browser_harness.judge.work import (
    achieved,
    calls_per_token,
    gpu_share,
    share_of_bandwidth,
    text_per_second,
)
from manifests.agreement import Agreement
from manifests.reference import Speed
from manifests.report import (
    TargetReport,
)

Kind = Literal["size", "load", "speed", "work", "memory", "parity", "health"]


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
        timed: how a figure of another kind is made of times, where it is: ``samples`` are
            its own, of ``whole`` ones it is one number.
    """

    label: str
    unit: Unit
    better: Literal["lower", "higher"]
    kind: Kind
    statistic: str
    source: Callable[[TargetReport], Samples | float | None]
    reference: Callable[[TargetReport, Speed], float | None] | None = None
    original: Read | None = None
    timed: Literal["samples", "whole"] | None = None

    @property
    def speed_like(self) -> bool:
        """Whether the value is made of times, which a software adapter spoils."""
        return self.kind in ("load", "speed") or self.timed is not None

    @property
    def sampled(self) -> bool:
        """Whether there are samples, of which a statistic can be asked."""
        return self.kind in ("load", "speed") or self.timed == "samples"

    def read(self, target: TargetReport) -> float | None:
        """The value, at the samples' median; ``None`` when the report does not hold it."""
        found = self.source(target)
        if not isinstance(found, Samples):
            return found
        median = median_of(tuple(ms for visit in found.visits for ms in visit))
        return None if median is None else found.figure(median)

    def worsening(self, ratio: float) -> float:
        """The logarithm of ``ratio`` (new over old), positive for a change for the worse."""
        log = math.log(ratio) if ratio > 0 else -math.inf
        return log if self.better == "lower" else -log


def _size_of_fp16(target: TargetReport) -> float | None:
    return target.target_bytes / target.fp16_bytes if target.fp16_bytes else None


def _shape(read: Callable[[Shape], float]) -> Read:
    def found(target: TargetReport) -> float | None:
        sweep = target.sweeps.context if target.sweeps else None
        shape = None if sweep is None else sweep_shape(sweep)
        return None if shape is None else read(shape)

    return found


def _leaks(target: TargetReport) -> float | None:
    sweep = target.sweeps.leaks if target.sweeps else None
    found = growths(sweep) if sweep else ()
    return sum(each.leaks for each in found) if found else None


def _compression(read: Callable[[Agreement], float | None]) -> Read:
    return parity(lambda parity: None if parity.compression is None else read(parity.compression))


def perplexity_ratio(agreement: Agreement) -> float | None:
    """Measured perplexity over the reference's; ``None`` when the latter is 0."""
    reference = agreement.perplexity_reference
    return agreement.perplexity / reference if reference else None


METRICS: MappingProxyType[str, Metric] = MappingProxyType(
    {
        "target_bytes": Metric(
            "Size of the target", "bytes", "lower", "size",
            "every file that a load of the target verifies", lambda target: target.target_bytes,
        ),
        "wire_bytes": Metric(
            "Bytes on the wire", "bytes", "lower", "size",
            "median over cold loads",
            lambda target: median_of(tuple(float(load.bytes_on_wire) for load in target.cold)),
        ),
        "size_of_fp16": Metric(
            "Size against fp16", "ratio", "lower", "size",
            "size of the target over two bytes per parameter", _size_of_fp16,
        ),
        "load_cold_ms": Metric(
            "Cold load", "ms", "lower", "load",
            "median over loads with nothing stored, until the session is ready",
            lambda target: load_times(target.cold),
        ),
        "load_warm_ms": Metric(
            "Warm load", "ms", "lower", "load",
            "median over loads from the browser's own storage, until the session is ready",
            lambda target: load_times(target.warm), lambda _target, speed: speed.load_ms,
        ),
        "time_to_first_token_ms": Metric(
            "Time to first token", "ms", "lower", "speed",
            "median over repetitions after warm-up, at the longest prompt",
            first_token, torch_first_token,
        ),
        "prefill_tokens_per_second": Metric(
            "Prefill", "tokens/s", "higher", "speed",
            "prompt tokens over the median time to first token, at the longest prompt",
            prefill, torch_prefill,
        ),
        "decode_tokens_per_second": Metric(
            "Decode", "tokens/s", "higher", "speed",
            "one token over the median time of a token, all runs after warm-up",
            lambda target: Samples(by_visit(target.decode), 1), torch_decode,
        ),
        "english_characters_per_second": Metric(
            "Decode, English characters", "characters/s", "higher", "work",
            "decode speed times the characters of a token of English",
            text_per_second("en", lambda text: text.characters / text.tokens), timed="samples",
        ),
        "english_words_per_second": Metric(
            "Decode, English words", "words/s", "higher", "work",
            "decode speed times the words of a token of English",
            text_per_second("en", lambda text: text.words / text.tokens), timed="samples",
        ),
        "arabic_characters_per_second": Metric(
            "Decode, Arabic characters", "characters/s", "higher", "work",
            "decode speed times the characters of a token of Arabic",
            text_per_second("ar", lambda text: text.characters / text.tokens), timed="samples",
        ),
        "arabic_words_per_second": Metric(
            "Decode, Arabic words", "words/s", "higher", "work",
            "decode speed times the words of a token of Arabic",
            text_per_second("ar", lambda text: text.words / text.tokens), timed="samples",
        ),
        "decode_bytes_per_second": Metric(
            "Decode, bytes read", "bytes/s", "higher", "work",
            "weights and KV cache that a token reads over its median time",
            achieved, timed="samples",
        ),
        "bandwidth_share": Metric(
            "Decode, share of bandwidth", "share", "higher", "work",
            "bytes that decoding reads over what a plain loop moves on the same device and "
            "threads in the same time", share_of_bandwidth, timed="samples",
        ),
        "gpu_time_share": Metric(
            "Decode, GPU busy", "share", "higher", "work",
            "time of compute passes by the GPU's own timestamps over the tokens' time",
            gpu_share, timed="whole",
        ),
        "context_growth": Metric(
            "Decode, growth over 1,000 positions", "share", "lower", "work",
            "of --sweep context: how much longer a token takes, steps left out",
            _shape(lambda shape: shape.per_thousand), timed="whole",
        ),
        "context_steps": Metric(
            "Decode, steps on the way", "count", "lower", "work",
            "of --sweep context: positions from which every token takes longer or shorter",
            _shape(lambda shape: len(shape.steps)), timed="whole",
        ),
        "dispatches_per_token": Metric(
            "Dispatches per token", "calls", "lower", "work",
            "compute dispatches that a decoded token asks for: mean",
            calls_per_token("dispatches"),
        ),
        "submits_per_token": Metric(
            "Submits per token", "calls", "lower", "work",
            "submissions to the GPU's queue for a decoded token: mean",
            calls_per_token("submits"),
        ),
        "bind_groups_per_token": Metric(
            "Bind groups per token", "calls", "lower", "work",
            "bind groups made for a decoded token: mean", calls_per_token("bind_groups"),
        ),
        "read_bytes_per_token": Metric(
            "Bytes read back per token", "bytes", "lower", "work",
            "bytes that the page maps to read them, for a decoded token: mean",
            calls_per_token("read_bytes"),
        ),
        "peak_memory_bytes": Metric(
            "Peak memory", "bytes", "lower", "memory",
            "largest sum of the renderer's and the GPU process's PSS at one moment",
            memory(peak_pss), lambda _target, speed: speed.peak_bytes,
        ),
        "rest_memory_bytes": Metric(
            "Memory at rest", "bytes", "lower", "memory",
            "the renderer's and the GPU process's PSS after the run",
            memory(lambda memory: pss(memory.rest)),
        ),
        "wasm_heap_bytes": Metric(
            "WASM heap", "bytes", "lower", "memory",
            "largest size; the heap never shrinks",
            memory(lambda memory: memory.peak.wasm_heap),
        ),
        "js_heap_bytes": Metric(
            "JS heap", "bytes", "lower", "memory",
            "largest size seen", memory(lambda memory: memory.peak.js_heap),
        ),
        "gpu_bytes": Metric(
            "GPU buffers", "bytes", "lower", "memory",
            "largest sum of live GPU buffers", memory(lambda memory: memory.peak.gpu_buffers),
        ),
        "runtime_top1": Metric(
            "Runtime loss: top-1 agreement", "share", "higher", "parity",
            "share of scored positions with the same most likely token; near-ties agree",
            parity(lambda parity: parity.runtime.top1),
        ),
        "runtime_max_abs_logit": Metric(
            "Runtime loss: largest logit difference", "logits", "lower", "parity",
            "maximum over positions and vocabulary",
            parity(lambda parity: parity.runtime.max_abs_logit),
        ),
        "runtime_kl_mean": Metric(
            "Runtime loss: KL divergence", "nats", "lower", "parity",
            "mean over scored positions of KL(PyTorch || browser)",
            parity(lambda parity: parity.runtime.kl_mean),
        ),
        "perplexity_ratio": Metric(
            "Runtime loss: perplexity ratio", "ratio", "lower", "parity",
            "the browser's perplexity over PyTorch's, same weights and text",
            parity(lambda parity: perplexity_ratio(parity.runtime)),
        ),
        "scored_positions": Metric(
            "Scored positions", "positions", "higher", "parity",
            "teacher-forced positions compared in the browser",
            parity(lambda parity: parity.runtime.positions),
        ),
        "export_top1": Metric(
            "Export loss: top-1 agreement", "share", "higher", "parity",
            "share of scored positions with the same most likely token; near-ties agree",
            parity(lambda parity: parity.export.top1),
        ),
        "export_max_abs_logit": Metric(
            "Export loss: largest logit difference", "logits", "lower", "parity",
            "maximum over positions and vocabulary",
            parity(lambda parity: parity.export.max_abs_logit),
        ),
        "export_kl_mean": Metric(
            "Export loss: KL divergence", "nats", "lower", "parity",
            "mean over scored positions of KL(checkpoint || bundle)",
            parity(lambda parity: parity.export.kl_mean),
        ),
        "export_perplexity_ratio": Metric(
            "Export loss: perplexity ratio", "ratio", "lower", "parity",
            "the bundle's perplexity over the checkpoint's, both in PyTorch",
            parity(lambda parity: perplexity_ratio(parity.export)),
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
            parity(tokens_equal),
        ),
        "round_trip_equal": Metric(
            "Texts decoded as by transformers", "share", "higher", "parity",
            "share of texts whose ids the page's tokenizer decodes to what transformers' does",
            parity(round_trip_equal),
        ),
        "greedy_equal": Metric(
            "Greedy continuations equal", "share", "higher", "parity",
            "share of continuations that are PyTorch's, or leave it at a near-tie",
            parity(greedy_equal),
        ),
        "question_accuracy": Metric(
            "Questions answered right", "share", "higher", "parity",
            "share of the questions of --tasks; PyTorch's is the checkpoint's, the original's "
            "is the uncompressed model's",
            lambda target: accuracy(target.questions),
            lambda target, _speed: accuracy(target.reference_questions),
            lambda target: accuracy(target.original_questions),
        ),
        "leaks": Metric(
            "Leaks", "count", "lower", "health",
            "of --sweep leaks: kinds of memory that every load and release leaves more of",
            _leaks,
        ),
        "failed_sweeps": Metric(
            "Failed sweeps", "count", "lower", "health",
            "sweeps that were asked for and came to no end",
            lambda target: len(target.sweeps.failed) if target.sweeps else None,
        ),
        "console_errors": Metric(
            "Console errors", "messages", "lower", "health",
            "errors that the page wrote to the console",
            lambda target: len(target.console),
        ),
    }
)  # fmt: skip
