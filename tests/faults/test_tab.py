"""What a tab makes of a page that refuses, throws, complains or is not there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from signal import Signals

import pytest
from playwright.async_api import Error as PlaywrightError

from browser_harness import crashes
from browser_harness.crashes import Crashes
from browser_harness.launch import driver, launch
from browser_harness.serve import StaticServer
from browser_harness.tab import (
    BrowserDied,
    PageCrashed,
    PageFailure,
    PageTimeout,
    PageUnreachable,
    Tab,
)
from tests.faults.strikes import kill_drivers

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

PAGE = "tabwrightMeasure"


@asynccontextmanager
async def opened(site: StaticServer) -> AsyncIterator[Tab]:
    async with (
        asyncio.timeout(60),
        driver() as playwright,
        launch(playwright, adapter="none") as session,
    ):
        tab = await session.new_tab()
        await tab.open(f"{site.url}/harness/index.html", PAGE, seconds=20)
        yield tab


def load(tab: Tab, target: str, seconds: float = 20) -> Awaitable[object]:
    request = {"target": target, "threads": 1, "manifest_url": "http://127.0.0.1:1/"}
    return tab.call(PAGE, "load", request, seconds=seconds, doing="loading")


def test_a_call_answers(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as tab:
            assert await tab.call(PAGE, "tokenize", ["ab"], seconds=5, doing="tokenising") == [
                [ord("a") % 8, ord("b") % 8]
            ]

    asyncio.run(work())


def test_promise_that_never_settles_is_a_timeout(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as tab:
            with pytest.raises(PageTimeout):
                await load(tab, "wasm-sleeps", seconds=0.5)

    asyncio.run(work())


def test_pages_that_were_left_are_closed_also_one_in_a_loop(site: StaticServer) -> None:
    async def work() -> None:
        async with (
            asyncio.timeout(60),
            driver() as playwright,
            launch(playwright, adapter="none") as session,
        ):
            loops, idle = [await session.new_tab() for _ in range(2)]
            for tab in (loops, idle):
                await tab.open(f"{site.url}/harness/index.html", PAGE, seconds=20)
            with pytest.raises(PageTimeout):
                await load(loops, "webgpu-loops", seconds=0.5)
            await session.close_tabs()
            assert session._left() == []
            # The browser goes on.
            again = await session.new_tab()
            await again.open(f"{site.url}/harness/index.html", PAGE, seconds=20)

    asyncio.run(work())


def test_a_page_that_has_crashed_answers_no_more(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as tab:
            with suppress(PlaywrightError):
                await tab._page.goto("chrome://crash")
            with pytest.raises(PageCrashed, match=r"\(SIGSEGV\) while loading") as caught:
                await load(tab, "wasm-sleeps")
            assert "rather than of the bundle" in caught.value.next_step

    asyncio.run(work())


def test_an_ending_is_waited_for_and_no_older_one_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crashes, "_HEARD_SECONDS", 0.2)

    async def work() -> None:
        heard = Crashes()
        heard._hear({"status": "crashed", "errorCode": Signals.SIGSEGV})
        before = heard.count
        assert (await heard.after(before)).how == ""
        later = asyncio.ensure_future(heard.after(before))
        await asyncio.sleep(0)
        heard._hear({"status": "oom", "errorCode": 0})
        assert (await later).how == "oom"
        assert (await heard.after(0)).how == "oom"

    asyncio.run(work())


def test_killed_driver(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as tab:
            call = asyncio.ensure_future(load(tab, "wasm-sleeps"))
            await asyncio.sleep(0.2)
            kill_drivers()
            with pytest.raises(BrowserDied):
                await call

    asyncio.run(work())


def test_rejection_keeps_the_page_s_code(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as tab:
            with pytest.raises(PageFailure, match="chunk 3 is not what it was") as caught:
                await load(tab, "wasm-refuses")
            assert caught.value.code == "chunk-corrupt"
            assert "export again" in caught.value.next_step
            with pytest.raises(PageFailure) as caught:
                await load(tab, "wasm-untyped")
            assert caught.value.code == "page-failure"

    asyncio.run(work())


def test_console_keeps_errors_only(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as tab:
            with pytest.raises(PageFailure):
                await load(tab, "wasm-noisy")
            assert any(line == "a kernel complained" for line in tab.console)
            assert not any("not an error" in line for line in tab.console)

    asyncio.run(work())


@pytest.mark.parametrize("path", ["/harness/missing.html", "/elsewhere"])
def test_page_that_is_not_there(site: StaticServer, path: str) -> None:
    async def work() -> None:
        async with driver() as playwright, launch(playwright, adapter="none") as session:
            tab = await session.new_tab()
            with pytest.raises(PageUnreachable, match="404"):
                await tab.open(site.url + path, PAGE, seconds=5)

    asyncio.run(work())
