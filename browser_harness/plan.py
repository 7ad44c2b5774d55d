"""How much is measured, as data: everything where it is quick, little where it crawls."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from browser_harness.flags import AdapterChoice, AdapterKind
from browser_harness.sweeps.asked import Asked

#: The measuring page, built from page/measure.
PAGE = Path(__file__).parent / "page" / "dist" / "measure"

PlanName = Literal["full", "software"]


@dataclass(frozen=True)
class Plan:
    """What is asked of one target.

    Attributes:
        warm_loads: loads from the store, each in a fresh page: at least so many.
        first_prompt: prompt tokens of the first token after a load.
        prefill_lengths: prompt lengths, in tokens; those that do not fit the model's
            context are left out.
        prefill_repetitions: per length, in each of the first ``warm_loads`` pages, after one
            to warm up.
        decode_tokens, decode_warmup: in each fresh page, tokens of the run after the first, and
            how many of those are thrown away.
        precision: the share of the median decode time that its confidence interval may
            reach to; further pages are opened until it does,
        sampling_seconds: or until so long after the first of them.
        score_texts, score_tokens: most texts, and most tokens of each, that are
            teacher-forced; ``None`` takes all.
        greedy_cases, greedy_tokens: as above, for continuations.
        questions: most questions that are asked; ``None`` asks all.
        share_first: the last load's first prompt is the first greedy case's, and its
            continuation serves as prefill sample, decode run and greedy case at once.
        sweep_visits: fresh pages of a context sweep.
        sweep_seconds: how long a sweep over lengths goes on.
        sweep_length: tokens that it goes to where no length is named; ``None``: the context.
        sweep_rounds: repetitions of each prompt length after a first one to warm up; 0 keeps
            the first.
        sweep_loads: loads under each condition.
        sweep_cycles: loads and releases of a leak check, where no number is named.
        bandwidth_bytes: what is moved to see how fast memory is, in each thread.
        gpu_time_tokens: tokens whose GPU time is told; 0 opens no page for it.
        call_seconds: deadline of one call to the page.
        load_seconds: deadline of one load.
        self_check: whether the page compares the bundle's own logits when it loads.
    """

    warm_loads: int = 4
    first_prompt: int = 16
    prefill_lengths: tuple[int, ...] = (16, 64, 256)
    prefill_repetitions: int = 1
    decode_tokens: int = 64
    decode_warmup: int = 4
    precision: float = 0.025
    sampling_seconds: float = 60.0
    score_texts: int | None = None
    score_tokens: int | None = None
    greedy_cases: int | None = None
    greedy_tokens: int | None = None
    questions: int | None = None
    share_first: bool = False
    sweep_visits: int = 2
    sweep_seconds: float = 600.0
    sweep_length: int | None = None
    sweep_rounds: int = 4
    sweep_loads: int = 3
    sweep_cycles: int = 10
    bandwidth_bytes: int = 128 << 20
    gpu_time_tokens: int = 16
    call_seconds: float = 120.0
    load_seconds: float = 300.0
    self_check: bool = True


PLANS: MappingProxyType[PlanName, Plan] = MappingProxyType(
    {
        "full": Plan(),
        # SwiftShader decodes a 135M model at 0.1 tokens/s: nothing is computed twice.
        "software": Plan(
            warm_loads=1,
            prefill_lengths=(),
            decode_tokens=3,
            decode_warmup=1,
            sampling_seconds=0.0,
            score_texts=3,
            score_tokens=16,
            greedy_cases=0,
            questions=2,
            share_first=True,
            sweep_visits=1,
            sweep_seconds=120.0,
            sweep_length=64,
            sweep_rounds=0,
            sweep_loads=1,
            sweep_cycles=4,
            bandwidth_bytes=8 << 20,
            gpu_time_tokens=0,
            call_seconds=400.0,
            # Four steps more, to find out less than what is scored anyway.
            self_check=False,
        ),
    }
)

#: Rows of logits in one answer: at most 16, and at most this many bytes.
MAX_BLOCK_BYTES = 16 << 20
MAX_BLOCK_ROWS = 16


def block_rows(vocab_size: int) -> int:
    """Rows of float32 logits to ask for at a time."""
    return max(1, min(MAX_BLOCK_ROWS, MAX_BLOCK_BYTES // (4 * vocab_size)))


def default_threads() -> int:
    """What onnxruntime-web itself takes: half of the logical cores, at most four."""
    return min(4, ((os.cpu_count() or 1) + 1) // 2)


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        browser: executable to drive; ``None`` finds one.
        adapter: WebGPU adapter to start the browser for.
        threads: WASM threads.
        page: folder of the measuring page.
        plans: by the kind of adapter that a target turned out to run on.
        sweeps: what is measured besides.
    """

    browser: Path | None = None
    adapter: AdapterChoice = "auto"
    threads: int = field(default_factory=default_threads)
    page: Path = PAGE
    plans: Mapping[PlanName, Plan] = field(default_factory=lambda: PLANS)
    sweeps: tuple[Asked, ...] = ()

    def plan_for(self, adapter: AdapterKind, *, on_gpu: bool) -> Plan:
        """The plan of a target that runs on ``adapter`` if it runs on the GPU."""
        return self.plans["software" if on_gpu and adapter == "software" else "full"]
