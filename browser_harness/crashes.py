"""How a page's process ended, of which Playwright says only that it did."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from playwright.async_api import Browser

#: The browser may tell it after the page's own call has failed.
_HEARD_SECONDS = 1.0

_SMALLER = "try a smaller model or target, or free memory"
_ENDED = f"something ended it, most often the system when memory ran out: {_SMALLER}"
_GAVE_UP = f"the browser gave it up, most often because memory ran out: {_SMALLER}"
_FAULT = "a fault of the browser rather than of the bundle: measure again, or with a newer browser"

#: What to do by how it ended.  SIGTRAP and SIGILL are what Chromium and V8 end themselves with.
_NEXT_STEPS: MappingProxyType[str, str] = MappingProxyType(
    {
        "SIGKILL": _ENDED,
        "oom": _ENDED,
        "SIGTRAP": _GAVE_UP,
        "SIGILL": _GAVE_UP,
        "SIGABRT": _GAVE_UP,
        "SIGSEGV": _FAULT,
        "SIGBUS": _FAULT,
    }
)


@dataclass(frozen=True)
class Ending:
    """What is known of a crash.

    Attributes:
        how: a signal's name, or the browser's own word for it; empty where it is not known.
    """

    how: str = ""

    @property
    def next_step(self) -> str:
        """What may help."""
        return _NEXT_STEPS.get(self.how, f"most often it ran out of memory: {_SMALLER}")


class Crashes:
    """Listens to a browser for the endings of its pages' processes."""

    def __init__(self) -> None:
        self._endings: list[Ending] = []
        self._next = asyncio.Event()

    @property
    def count(self) -> int:
        """How many there were."""
        return len(self._endings)

    async def listen(self, browser: Browser) -> None:
        """Hear from now on.

        Raises:
            playwright.async_api.Error: the browser is gone.
        """
        devtools = await browser.new_browser_cdp_session()
        devtools.on("Target.targetCrashed", self._hear)
        await devtools.send("Target.setDiscoverTargets", {"discover": True})

    def _hear(self, crash: dict[str, Any]) -> None:
        self._endings.append(Ending(_called(crash["status"], crash["errorCode"])))
        self._next.set()
        self._next = asyncio.Event()

    async def after(self, count: int) -> Ending:
        """The last one after the first ``count``, which may still have to be heard."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARD_SECONDS):
                while self.count <= count:
                    await self._next.wait()
        return self._endings[-1] if self.count > count else Ending()


def _called(status: str, code: int) -> str:
    """The signal where there was one; on Windows the code is the process's exit status."""
    if status in {"crashed", "killed"}:
        with suppress(ValueError):
            return signal.Signals(code).name
    return status if status == "oom" else f"{status}, {code}"
