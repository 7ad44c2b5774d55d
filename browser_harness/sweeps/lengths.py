"""How time goes with length: of the context while decoding, of the prompt until its answer."""

from __future__ import annotations

import time

from browser_harness.loads import Bench, leave, load
from browser_harness.prompts import Prompts
from browser_harness.speed import decode_run
from manifests.progress import Progress
from manifests.sweeps import ContextSweep, PromptSample

#: The first length; each further one is twice as long.
_SHORTEST = 16


async def sweep_context(
    bench: Bench, prompts: Prompts, length: int, progress: Progress
) -> ContextSweep:
    """Decode to ``length`` positions, in as many fresh pages as the plan says.

    Each page has its share of the plan's seconds, and ends early when they are over.
    """
    plan, runs = bench.plan, []
    for visit in range(plan.sweep_visits):
        progress(f"{bench.target}: context sweep", visit, plan.sweep_visits)
        loaded = await load(bench, "context sweep", prompts, 1)
        result = await loaded.page.generate_within(
            loaded.prompt,
            max(2, 1 + length - len(loaded.prompt)),
            seconds=plan.sweep_seconds / plan.sweep_visits,
        )
        runs.append(decode_run(loaded.prompt, plan.decode_warmup, result))
        await leave(bench, loaded)
    progress(f"{bench.target}: context sweep", plan.sweep_visits, plan.sweep_visits)
    return ContextSweep(
        prompt_tokens=runs[0].prompt_tokens,
        length=length,
        warmup=plan.decode_warmup,
        runs=tuple(run.ms for run in runs),
    )


async def sweep_prompts(
    bench: Bench, prompts: Prompts, longest: int, progress: Progress
) -> tuple[PromptSample, ...]:
    """The first token after prompts of 16, 32, 64 ... tokens and after ``longest``.

    The first round, from short to long, warms up and ends at half of the plan's seconds;
    the lengths that it came to are then asked up and down, so that a drift falls on all alike.
    """
    plan = bench.plan
    lengths = [_SHORTEST << n for n in range(32) if _SHORTEST << n < longest] + [longest]
    loaded = await load(bench, "prompt sweep", prompts, 1)
    started, taken = time.monotonic(), dict[int, list[float]]()
    for done, length in enumerate(lengths):
        if taken and time.monotonic() - started > plan.sweep_seconds / 2:
            break
        progress(f"{bench.target}: prompt sweep", done, len(lengths) * (1 + plan.sweep_rounds))
        prompt = await prompts.take(loaded.page, length)
        result = await loaded.page.generate_within(prompt, 1, seconds=plan.sweep_seconds)
        taken[length] = [result.at_ms[0]]
    for turn in range(plan.sweep_rounds):
        for length in sorted(taken, reverse=turn % 2 == 0):
            prompt = await prompts.take(loaded.page, length)
            result = await loaded.page.generate_within(prompt, 1, seconds=plan.sweep_seconds)
            taken[length].append(result.at_ms[0])
        done = len(lengths) * (2 + turn)
        progress(f"{bench.target}: prompt sweep", done, len(lengths) * (1 + plan.sweep_rounds))
    await leave(bench, loaded)
    # A plan without further rounds has nothing but the first.
    warmup = 1 if plan.sweep_rounds else 0
    return tuple(
        PromptSample(prompt_tokens=length, warmup=warmup, ms=tuple(ms))
        for length, ms in taken.items()
    )
