"""Start a browser on a profile of its own, and leave nothing of it behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from playwright.async_api import BrowserContext, Page, Playwright, async_playwright
from playwright.async_api import Error as PlaywrightError

from browser_harness.browsers import FoundBrowser, browser_version, find_browser
from browser_harness.crashes import Crashes
from browser_harness.flags import AdapterKind, flags_for
from browser_harness.processes import find_processes, process_type
from browser_harness.profiles import Profile
from browser_harness.tab import BrowserDied, Tab
from manifests.errors import EnvironmentProblem
from manifests.report import Browser

_DRIVER_SECONDS = 30.0
_LAUNCH_SECONDS = 60.0
#: A page in a loop cannot be closed.  The reaper ends in moments what is left after this.
_CLOSE_SECONDS = 2.0


class DriverFailed(EnvironmentProblem):
    """Playwright's driver, which stands between us and the browser, does not start."""

    code = "driver-failed"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"Playwright's driver does not start: {reason}",
            "run 'playwright --version' to see why, or install the package again",
        )


class BrowserFailed(EnvironmentProblem):
    """A browser is there, but does not start."""

    code = "browser-failed"

    def __init__(self, executable: Path, reason: str) -> None:
        super().__init__(
            f"{executable}: does not start: {reason}",
            "run it by hand to see why; on Ubuntu its sandbox may need an AppArmor profile, "
            "which the distribution's own package has",
        )


@dataclass(frozen=True)
class Session:
    """A running browser.

    Attributes:
        browser: what it is and how it was started.
        profile: its folder; :func:`browser_harness.processes.find_processes` takes it.
    """

    browser: Browser
    profile: Path
    _context: BrowserContext
    _crashes: Crashes

    async def new_tab(self, *, seconds: float = 30.0) -> Tab:
        """Open an empty page.

        Raises:
            BrowserDied: the browser is gone, or gives no page within ``seconds``.
        """
        try:
            async with asyncio.timeout(seconds):
                return Tab(await self._context.new_page(), self._crashes)
        except Exception:  # noqa: BLE001 - a killed driver raises a bare Exception
            raise BrowserDied("opening a page") from None

    async def close_tabs(self) -> None:
        """Close the pages that were left open; one that does not let go loses its renderer."""
        for page in self._left():
            await _within(_CLOSE_SECONDS, page.close())
        if self._left():
            for process in await asyncio.to_thread(find_processes, self.profile):
                with suppress(psutil.Error):
                    if process_type(process) == "renderer":
                        process.kill()
        for page in self._left():
            await _within(_CLOSE_SECONDS, page.close())

    def _left(self) -> list[Page]:
        # The first one came with the browser, and is never used.
        return self._context.pages[1:]


@asynccontextmanager
async def driver() -> AsyncIterator[Playwright]:
    """Playwright's driver process, ended within a deadline however its work ends.

    Raises:
        DriverFailed: it does not start.
    """
    asyncio.get_running_loop().set_exception_handler(_drop_abandoned)
    manager = async_playwright()
    others = _children()
    try:
        async with asyncio.timeout(_DRIVER_SECONDS):
            playwright = await manager.start()
    except TimeoutError:
        await _end(_children() - others)
        raise DriverFailed(f"no answer within {_DRIVER_SECONDS:g} s") from None
    # What a driver that ends at once raises is a bare Exception.
    except Exception as error:  # noqa: BLE001
        await _end(_children() - others)
        raise DriverFailed(str(error)) from None
    try:
        yield playwright
    finally:
        await _within(_CLOSE_SECONDS, playwright.stop())


def _children() -> set[psutil.Process]:
    """The processes that this one has started, also those that nobody has waited for."""
    return set(psutil.Process().children())


async def _end(started: set[psutil.Process]) -> None:
    """End the drivers among ``started``, and let asyncio see it.

    A thread of asyncio's waits for each and tells the loop; a loop that is closed before
    leaves the driver's pipes to the garbage collector.
    """
    for process in started:
        with suppress(psutil.NoSuchProcess):  # It has ended by itself.
            if "run-driver" in process.cmdline():
                process.kill()
    with suppress(TimeoutError):
        async with asyncio.timeout(_CLOSE_SECONDS):
            # To wait for it here would take its exit status from that thread.
            while any(process.is_running() for process in started):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.1)  # Between seeing and telling.


@asynccontextmanager
async def launch(
    playwright: Playwright,
    *,
    executable: Path | None = None,
    adapter: AdapterKind,
) -> AsyncIterator[Session]:
    """A browser with a fresh profile.

    At the end, whatever ended it, none of its processes and no profile folder is left.

    Args:
        playwright: from :func:`driver`.
        executable: the browser that the user named.
        adapter: the WebGPU adapter that it is started for.

    Raises:
        BrowserMissing: none is installed.
        BrowserFailed, BrowserDied: it does not start, or its driver is gone.
        ProfileFailed, ProfileLeft: its profile cannot be made, or not be removed.
    """
    found = find_browser(executable, Path(playwright.chromium.executable_path))
    version = await asyncio.to_thread(browser_version, found.executable)
    flags = flags_for(adapter)
    with Profile() as profile:
        try:
            context = await _start(playwright, found, profile.path, flags)
        finally:
            profile.take_along()
        try:
            crashes = await _listen(context)
            yield Session(
                browser=Browser(
                    name=found.name,
                    version=version,
                    executable=str(found.executable),
                    flags=flags,
                    headless=True,
                ),
                profile=profile.path,
                _context=context,
                _crashes=crashes,
            )
        finally:
            await _within(_CLOSE_SECONDS, context.close())


async def _start(
    playwright: Playwright,
    found: FoundBrowser,
    profile: Path,
    flags: tuple[str, ...],
) -> BrowserContext:
    try:
        return await playwright.chromium.launch_persistent_context(
            profile,
            # Elsewhere, what a killed driver leaves would not go with the profile.
            artifacts_dir=profile,
            executable_path=found.executable,
            headless=True,
            # The flag is among ours, so that the report tells it.
            chromium_sandbox=True,
            args=list(flags),
            timeout=_LAUNCH_SECONDS * 1000,
            # The driver would end the browser under us at Ctrl-C, in its own time.
            handle_sigint=False,
            handle_sigterm=False,
            handle_sighup=False,
        )
    except PlaywrightError as error:
        raise BrowserFailed(found.executable, error.message.splitlines()[0]) from None
    except Exception:  # noqa: BLE001 - a killed driver raises a bare Exception
        raise BrowserDied("starting") from None


async def _listen(context: BrowserContext) -> Crashes:
    crashes = Crashes()
    try:
        async with asyncio.timeout(_LAUNCH_SECONDS):
            assert context.browser is not None  # It is for contexts that reach us otherwise.
            await crashes.listen(context.browser)
    except Exception:  # noqa: BLE001 - as in _start
        raise BrowserDied("starting") from None
    return crashes


def _drop_abandoned(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Calls given up at a deadline end with their page, when nobody waits for them."""
    if context.get("message") != "Future exception was never retrieved":
        loop.default_exception_handler(context)


async def _within(seconds: float, closing: Awaitable[None]) -> None:
    """Close politely.

    A dead browser cannot close and a hung one will not: the profile's reaper ends
    what is left, so neither is an error here.
    """
    with suppress(Exception):
        async with asyncio.timeout(seconds):
            await closing
