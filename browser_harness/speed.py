"""Time to the first token by prompt length, and the time of every token after it.

A fresh page is what can be sampled independently: each one decodes, and pages are opened
until the median is known well enough.
"""

from __future__ import annotations

import hashlib
import math
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from browser_harness.client import MeasurePage
from browser_harness.judge.figures import precision
from browser_harness.judge.intervals import estimate
from browser_harness.judge.statistics import by_visit
from browser_harness.plan import Plan
from manifests.page import GenerateResult, GpuCalls
from manifests.report import DecodeRun, PrefillSample


def prompt_digest(prompt: Sequence[int]) -> str:
    """SHA-256 over the ids as little-endian int64."""
    return hashlib.sha256(struct.pack(f"<{len(prompt)}q", *prompt)).hexdigest()


def decode_run(
    prompt: Sequence[int],
    warmup: int,
    result: GenerateResult,
    *,
    visit: int = 0,
    alone: GenerateResult | None = None,
) -> DecodeRun:
    """The tokens after the first, each in milliseconds since the one before.

    ``alone`` is one token after the same prompt: what the run asked of the GPU beyond that
    was asked by the tokens after the first.
    """
    steps = zip(result.at_ms, result.at_ms[1:], strict=False)
    return DecodeRun(
        prompt_tokens=len(prompt),
        prompt=prompt_digest(prompt),
        visit=visit,
        warmup=warmup,
        ms=tuple(after - before for before, after in steps),
        calls=_beyond(result.calls, alone.calls if alone else None),
    )


def _beyond(calls: GpuCalls | None, alone: GpuCalls | None) -> GpuCalls | None:
    if calls is None or alone is None:
        return None
    of_prompt = dict(alone)
    return GpuCalls(**{name: count - of_prompt[name] for name, count in calls})


async def measure_prefill(
    page: MeasurePage, prompts: Sequence[Sequence[int]], plan: Plan, *, visit: int
) -> tuple[PrefillSample, ...]:
    """Each prompt in each round, so that a slow moment falls on all; the first warms up."""
    taken: list[list[float]] = [[] for _ in prompts]
    for _ in range(1 + plan.prefill_repetitions):
        for prompt, times in zip(prompts, taken, strict=True):
            times.append((await page.generate(prompt, 1)).at_ms[0])
    return tuple(
        PrefillSample(
            prompt_tokens=len(prompt),
            prompt=prompt_digest(prompt),
            visit=visit,
            warmup=1,
            ms=tuple(times),
        )
        for prompt, times in zip(prompts, taken, strict=True)
    )


async def measure_decode(
    page: MeasurePage, prompt: Sequence[int], tokens: int, plan: Plan, *, visit: int
) -> DecodeRun:
    """A run of ``tokens`` tokens after the first."""
    result = await page.generate(prompt, 1 + tokens)
    # After the run, so that it is timed as it always was.
    alone = await page.generate(prompt, 1) if result.calls else None
    return decode_run(prompt, plan.decode_warmup, result, visit=visit, alone=alone)


@dataclass
class Sampling:
    """Decides after each fresh page whether another is opened."""

    plan: Plan
    started: float = field(default_factory=time.monotonic)

    def goes_on(self, visits: int, runs: Sequence[DecodeRun]) -> bool:
        """Whether ``visits`` pages with ``runs`` in them are not enough."""
        if visits < self.plan.warm_loads:
            return True
        if time.monotonic() - self.started >= self.plan.sampling_seconds:
            return False
        return known_to(runs) > self.plan.precision

    def note(self, visits: int, runs: Sequence[DecodeRun]) -> str:
        """What the sampling came to, for whoever reads the report; empty for a single page."""
        known, asked = known_to(runs), self.plan.precision
        if math.isinf(known):
            return ""
        told = f"{visits} fresh pages: the median decode time is known to {known:.1%}"
        if known <= asked:
            return told
        seconds = time.monotonic() - self.started
        return (
            f"{told}; the time limit came after {seconds:.0f} s, before the {asked:.1%} asked for"
        )


def known_to(runs: Sequence[DecodeRun]) -> float:
    """The share that the interval around the median decode time reaches to; may be infinite."""
    return precision(estimate(by_visit(runs), 0.5))
