"""Load a target in a fresh page: what a visitor waits for, first and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from browser_harness.client import OBJECT, MeasurePage
from browser_harness.launch import Session
from browser_harness.plan import Plan
from browser_harness.prompts import Prompts
from browser_harness.serve import StaticServer
from browser_harness.tab import Tab
from browser_harness.watch import Watch
from manifests.page import GenerateResult, LoadRequest, LoadResult
from manifests.report import LoadSample

OPEN_SECONDS = 60.0

#: What is done with a tab before it opens the page, or before the page loads the model.
OnTab = Callable[[Tab], Awaitable[None]]


@dataclass(frozen=True)
class Bench:
    """One target in one browser, and what watches it."""

    session: Session
    site: StaticServer
    watch: Watch
    target: str
    threads: int
    plan: Plan
    console: list[str]


@dataclass(frozen=True)
class Loaded:
    """A page that holds the model, how long that took, and its first continuation."""

    page: MeasurePage
    result: LoadResult
    sample: LoadSample
    prompt: tuple[int, ...]
    first: GenerateResult


def request(bench: Bench) -> LoadRequest:
    """What the page is asked to load."""
    return LoadRequest(
        manifest_url=f"{bench.site.url}/bundle/manifest.json",
        target=bench.target,
        threads=bench.threads,
        self_check=bench.plan.self_check,
    )


async def load(
    bench: Bench,
    phase: str,
    prompts: Prompts,
    tokens: int,
    *,
    before: OnTab | None = None,
    opened: OnTab | None = None,
    seconds: float | None = None,
) -> Loaded:
    """Open a page, load the target and generate.

    Bytes are counted from the opening of the page on: runtime and weights.

    Args:
        bench: where.
        phase: name of this load on the memory timeline.
        prompts: where the prompt comes from.
        tokens: how many to generate; the first ends the load.
        before: done with the tab before it opens the page.
        opened: done once the page is open, before it loads the target.
        seconds: the deadline of the load, where it is not the plan's.
    """
    bench.watch.phase = phase
    bench.site.reset()
    tab = await bench.session.new_tab()
    # The list is the report's: what is said before a failure is told, too.
    tab.console = bench.console
    if before is not None:
        await before(tab)
    await tab.open(f"{bench.site.url}/harness/index.html", OBJECT, seconds=OPEN_SECONDS)
    if opened is not None:
        await opened(tab)
    page = MeasurePage(tab, call_seconds=bench.plan.call_seconds)
    bench.watch.ask_page = page.memory
    result = await page.load(request(bench), seconds=seconds or bench.plan.load_seconds)
    on_wire = bench.site.bytes_sent
    bench.watch.phase = f"{phase}: first token"
    prompt = prompts.first or await prompts.take(page, bench.plan.first_prompt)
    first = await page.generate(prompt, tokens)
    sample = LoadSample(
        timings=result.timings, first_token_ms=first.at_ms[0], bytes_on_wire=on_wire
    )
    return Loaded(page, result, sample, prompt, first)


async def leave(bench: Bench, loaded: Loaded) -> None:
    """Close the page."""
    bench.watch.ask_page = None
    await loaded.page.close()
