"""One visit of one side: a fresh browser or a fresh process, a cold load, a warm one, tokens."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from playwright.async_api import Playwright

from browser_harness.client import OBJECT
from browser_harness.flags import AdapterKind
from browser_harness.launch import Session, launch
from browser_harness.serve import StaticServer
from browser_harness.tab import Tab
from browser_harness.watch import watching
from exporter.reference.native import Job, OrtDecoder, time_in_a_process
from manifests.base import Schema
from manifests.bundle import read_manifest
from manifests.page import GpuCalls
from tests.bench.contest.pages import SECONDS, Prompt, Runtime, open_runtime
from tests.bench.contest.sides import NATIVE, Effort, Side

Texts = Sequence[tuple[int, ...]]
#: Tokens of an answer of which only the first counts: wllama tells a rate from two on.
_LEAST = 2


class Visit(Schema):
    """Milliseconds of one visit.

    Attributes:
        cold_ms: absent for native engines, whose file is on the disk.
        answer_ms: from the first prompt after the cold load to its first token; absent likewise.
        prompt_ms: the same of later prompts, the browser's compilers having had their say.
        at_ms: from the start of the last of them to each of its tokens; of a native engine, of
            the first of them.
    """

    cold_ms: float | None = None
    warm_ms: float
    answer_ms: float | None = None
    prompt_ms: tuple[float, ...]
    at_ms: tuple[float, ...]


class Facts(Schema):
    """What is counted once, apart from the timed visits.

    ``calls`` are per decoded token.
    """

    download_bytes: int | None = None
    peak_bytes: int
    perplexity: float | None = None
    calls: dict[str, float] | None = None


@dataclass(frozen=True)
class Guest:
    """A side in a browser of its own, loaded and asked once."""

    session: Session
    tab: Tab
    runtime: Runtime
    cold_ms: float
    answer_ms: float

    @classmethod
    @asynccontextmanager
    async def invited(
        cls,
        playwright: Playwright,
        site: StaticServer,
        side: Side,
        prompt: Prompt,
        effort: Effort,
        adapter: AdapterKind,
    ) -> AsyncIterator[Guest]:
        """Load ``side`` where there is nothing of it yet; the browser ends with the context."""
        async with launch(playwright, adapter=adapter) as session:
            tab = await session.new_tab()
            runtime = await open_runtime(tab, site, side)
            cold = await runtime.load(side)
            answer, *_ = await runtime.generate(prompt, effort.warmup)
            yield cls(session, tab, runtime, cold, answer)

    def told(self, warm: float, prompts: Sequence[float], at_ms: Sequence[float]) -> Visit:
        """What was timed, with what was timed when it came."""
        return Visit(
            cold_ms=self.cold_ms,
            warm_ms=warm,
            answer_ms=self.answer_ms,
            prompt_ms=tuple(prompts),
            at_ms=tuple(at_ms),
        )


async def visit(
    playwright: Playwright,
    site: StaticServer,
    side: Side,
    prompt: Prompt,
    effort: Effort,
    adapter: AdapterKind,
) -> Visit:
    """Time ``side`` in a browser that has nothing of it yet."""
    async with Guest.invited(playwright, site, side, prompt, effort, adapter) as guest:
        generate = guest.runtime.generate
        prompts = [await generate(prompt, _LEAST) for _ in range(effort.again)]
        at_ms = await generate(prompt, effort.many)
        await guest.tab.close(seconds=SECONDS)
        warm = await _load_again(guest.session, site, side)
    return guest.told(warm, [times[0] for times in [*prompts, at_ms]], at_ms)


@asynccontextmanager
async def taking_turns(
    playwright: Playwright,
    site: StaticServer,
    side: Side,
    prompt: Prompt,
    effort: Effort,
    adapter: AdapterKind,
) -> AsyncIterator[Callable[[], Awaitable[Visit]]]:
    """Open ``side`` for as long as others take turns with it; gives what a turn is."""
    async with Guest.invited(playwright, site, side, prompt, effort, adapter) as guest:
        warm = await _load_again(guest.session, site, side)

        async def turn() -> Visit:
            at_ms = await guest.runtime.generate(prompt, effort.many)
            return guest.told(warm, at_ms[:1], at_ms)

        yield turn


async def _load_again(session: Session, site: StaticServer, side: Side) -> float:
    tab = await session.new_tab()
    warm = await (await open_runtime(tab, site, side)).load(side)
    await tab.close(seconds=SECONDS)
    return warm


async def count(
    playwright: Playwright,
    site: StaticServer,
    side: Side,
    prompt: Prompt,
    effort: Effort,
    adapter: AdapterKind,
    texts: Texts,
) -> Facts:
    """Count what ``side`` downloads, takes and asks of the GPU, and how well it answers."""
    async with launch(playwright, adapter=adapter) as session, watching(session.profile) as watch:
        tab = await session.new_tab()
        runtime = await open_runtime(tab, site, side)
        await runtime.load(side)
        sent = site.bytes_sent
        await runtime.generate(prompt, effort.warmup)
        calls = [await _calls(tab)]
        for tokens in (effort.few, effort.many):
            await runtime.generate(prompt, tokens)
            calls.append(await _calls(tab))
        perplexity = None
        if effort.perplexity and not side.no_perplexity:
            surprises = [await runtime.surprise(ids) for ids in texts]
            perplexity = _perplexity(sum(surprises), texts)
        memory = watch.memory()
        await tab.close(seconds=SECONDS)
    assert memory is not None
    return Facts(
        download_bytes=sent,
        peak_bytes=memory.peak.renderer_pss + memory.peak.gpu_process_pss,
        perplexity=perplexity,
        calls=None if side.device == "cpu" else _per_token(calls, effort.many - effort.few),
    )


async def _calls(tab: Tab) -> dict[str, int]:
    told = await tab.call(OBJECT, "gpuCalls", seconds=SECONDS, doing="counting")
    return GpuCalls.model_validate(told).model_dump()


def _per_token(calls: Sequence[dict[str, int]], tokens: int) -> dict[str, float]:
    """What ``tokens`` more tokens asked for: both runs had the same prompt."""
    before, few, many = calls
    return {
        name: ((many[name] - few[name]) - (few[name] - before[name])) / tokens for name in before
    }


def _perplexity(surprise: float, texts: Texts) -> float:
    return math.exp(surprise / sum(len(ids) - 1 for ids in texts))


def run_natively(bundle: Path, side: Side, prompt: Prompt, effort: Effort) -> tuple[Visit, int]:
    """Time a native engine in a process of its own; the visit, and its peak of memory."""
    assert side.engine in NATIVE
    job = Job(
        bundle=str(bundle),
        engine=side.engine,
        target=side.source,
        threads=side.threads,
        prompts=(prompt.ids,) * (1 + effort.again),
        decode_tokens=effort.many - 1,
        repetitions=1,
    )
    timed = time_in_a_process(job)
    prompts = tuple(ms for (ms,) in timed.prefill_ms)
    times = np.cumsum([prompts[0], *timed.decode_ms])
    found = Visit(warm_ms=timed.load_ms, prompt_ms=prompts, at_ms=tuple(times.tolist()))
    return found, timed.peak_bytes


def natively_counted(bundle: Path, side: Side, peak: int, texts: Texts) -> Facts:
    """The same facts of a native engine: there is no download and no GPU."""
    perplexity = None
    if not side.no_perplexity:
        entry = read_manifest(bundle).targets[side.source]
        surprise = 0.0
        for ids in texts:
            decoder = OrtDecoder(bundle, entry, side.threads)
            decoder.reset()
            rows = decoder.logits(ids, keep=0).astype(np.float64)[:-1]
            rows -= rows.max(axis=-1, keepdims=True)
            chosen = rows[np.arange(len(rows)), list(ids[1:])]
            surprise -= float((chosen - np.log(np.exp(rows).sum(axis=-1))).sum())
        perplexity = _perplexity(surprise, texts)
    return Facts(peak_bytes=peak, perplexity=perplexity)
