"""Load a target in a fresh page: what a visitor waits for, first and again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from browser_harness.adapters import AdapterMissing
from browser_harness.client import OBJECT, MeasurePage
from browser_harness.flags import AdapterKind
from browser_harness.launch import Session
from browser_harness.plan import Plan
from browser_harness.prompts import Prompts
from browser_harness.serve import StaticServer
from browser_harness.tab import Tab
from browser_harness.watch import Watch
from manifests.bundle import MANIFEST_NAME
from manifests.page import GenerateResult, LoadRequest, LoadResult
from manifests.report import LoadSample

_OPEN_SECONDS = 60.0

#: What is done with a tab before it opens the page, or before the page loads the model.
OnTab = Callable[[Tab], Awaitable[None]]


def serve(bundle: Path, page: Path) -> StaticServer:
    """A bundle and the measuring page, from one origin."""
    return StaticServer({"/bundle": bundle, "/harness": page})


@dataclass(frozen=True, kw_only=True)
class Served:
    """A target for pages to load.

    Attributes:
        site: what :func:`serve` gave.
        target: the target's name.
        threads: WASM threads.
        plan: deadlines, and whether the page checks the model.
        adapter: what the browser is started for; ``none`` where the target needs none.
    """

    site: StaticServer
    target: str
    threads: int
    plan: Plan
    adapter: AdapterKind

    async def open(
        self, session: Session, *, before: OnTab | None = None, console: list[str] | None = None
    ) -> MeasurePage:
        """A fresh measuring page.

        Args:
            session: the browser.
            before: done with the tab before it opens the page.
            console: takes what the page writes, also before a failure.
        """
        tab = await session.new_tab()
        if console is not None:
            tab.console = console
        if before is not None:
            await before(tab)
        await tab.open(f"{self.site.url}/harness/index.html", OBJECT, seconds=_OPEN_SECONDS)
        return MeasurePage(tab, call_seconds=self.plan.call_seconds)

    async def load(self, page: MeasurePage, *, seconds: float | None = None) -> LoadResult:
        """Have ``page`` load the target, within ``seconds`` or the plan's.

        Raises:
            AdapterMissing: the page got a software adapter where hardware was settled on, as
                Chromium gives it once the GPU has failed too often.
        """
        request = LoadRequest(
            manifest_url=f"{self.site.url}/bundle/{MANIFEST_NAME}",
            target=self.target,
            threads=self.threads,
            self_check=self.plan.self_check,
        )
        result = await page.load(request, seconds=seconds or self.plan.load_seconds)
        if self.adapter == "hardware" and result.software:
            raise AdapterMissing("hardware")
        return result

    async def loaded(self, session: Session) -> MeasurePage:
        """A fresh page that has loaded the target."""
        page = await self.open(session)
        await self.load(page)
        return page


@dataclass(frozen=True, kw_only=True)
class Bench(Served):
    """A target in one browser, and what watches it; ``console`` is the report's."""

    session: Session
    watch: Watch
    console: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Loaded:
    """A page that holds the model, how long that took, and its first continuation."""

    page: MeasurePage
    result: LoadResult
    sample: LoadSample
    prompt: tuple[int, ...]
    first: GenerateResult


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
    page = await bench.open(bench.session, before=before, console=bench.console)
    if opened is not None:
        await opened(page.tab)
    bench.watch.ask_page = page.memory
    result = await bench.load(page, seconds=seconds)
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
