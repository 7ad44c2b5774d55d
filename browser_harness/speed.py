"""Time to the first token by prompt length, and the time of every token after it."""

from __future__ import annotations

from collections.abc import Sequence

from browser_harness.client import MeasurePage
from browser_harness.plan import Plan
from manifests.page import GenerateResult
from manifests.progress import Progress
from manifests.report import DecodeRun, PrefillSample


def decode_run(prompt_tokens: int, warmup: int, result: GenerateResult) -> DecodeRun:
    """The tokens after the first, each in milliseconds since the one before."""
    steps = zip(result.at_ms, result.at_ms[1:], strict=False)
    return DecodeRun(
        prompt_tokens=prompt_tokens,
        warmup=warmup,
        ms=tuple(after - before for before, after in steps),
    )


async def measure_prefill(
    page: MeasurePage,
    prompts: Sequence[Sequence[int]],
    plan: Plan,
    *,
    progress: Progress,
    phase: str,
) -> tuple[PrefillSample, ...]:
    """Each prompt in each round, so that a slow moment falls on all of them."""
    rounds = plan.prefill_warmup + plan.prefill_repetitions
    taken: list[list[float]] = [[] for _ in prompts]
    for done in range(rounds):
        progress(phase, done, rounds)
        for prompt, times in zip(prompts, taken, strict=True):
            times.append((await page.generate(prompt, 1)).at_ms[0])
    progress(phase, rounds, rounds)
    return tuple(
        PrefillSample(prompt_tokens=len(prompt), warmup=plan.prefill_warmup, ms=tuple(times))
        for prompt, times in zip(prompts, taken, strict=True)
    )


async def measure_decode(
    page: MeasurePage,
    prompt: Sequence[int],
    tokens: int,
    plan: Plan,
    progress: Progress,
    phase: str,
) -> tuple[DecodeRun, ...]:
    """Runs of ``tokens`` tokens after the first."""
    runs = []
    for done in range(plan.decode_runs):
        progress(phase, done, plan.decode_runs)
        result = await page.generate(prompt, 1 + tokens)
        runs.append(decode_run(len(prompt), plan.decode_warmup, result))
    progress(phase, plan.decode_runs, plan.decode_runs)
    return tuple(runs)
