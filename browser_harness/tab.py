"""One page, with a deadline on every call and a typed error for every way it ends."""

from __future__ import annotations

import asyncio
import re
from typing import Any

from playwright.async_api import CDPSession, ConsoleMessage, Page
from playwright.async_api import Error as PlaywrightError

from browser_harness.crashes import Crashes, Ending
from manifests.errors import EnvironmentProblem

#: Lines kept of the console, and characters kept of a line: a page in a loop must
#: not fill the report.
CONSOLE_LINES = 200
CONSOLE_CHARACTERS = 2000

_DAMAGED = "run 'tabwright verify' on the bundle, and export again"

#: Next steps by the page's codes, where there is one to tell.
NEXT_STEPS = {
    "adapter-missing": "run 'tabwright doctor' to see which adapters there are",
    "feature-missing": "choose a target that does not need it, such as webgpu-q4",
    "limit-too-small": "choose a target that needs less of the device",
    "jspi-missing": "use Chromium or Chrome 137 or newer",
    "chunk-corrupt": _DAMAGED,
    "file-missing": _DAMAGED,
    "manifest-invalid": _DAMAGED,
    "seal-broken": _DAMAGED,
    "server-busy": "try again later: the server was asked three times",
    "size-mismatch": _DAMAGED,
    "truncated": _DAMAGED,
    "quota-exceeded": "free disk space: a browser gives a site a share of what is free",
    "device-lost": "most often it ran out of GPU memory: choose a smaller model or target",
    "session-failed": "most often it ran out of memory: choose a smaller model or target",
}

_TYPED = re.compile(r"\s*([a-z][a-z0-9]*(?:-[a-z0-9]+)*): (.*)", re.DOTALL)

#: What Playwright says around a reason: its own method, and the address again.
_CALLED = re.compile(r"^Page\.\w+: | at \S+$")

#: Rejections come back as data: an exception's text would bring its stack along.
_CALL = """async ([object, method, args]) => {
  try {
    return {value: (await globalThis[object][method](...args)) ?? null};
  } catch (error) {
    return {error: String(error?.message ?? error)};
  }
}"""

_WAIT_FOR = """async (object) => {
  while (globalThis[object] === undefined) await new Promise((done) => setTimeout(done, 20));
}"""


class PageTimeout(EnvironmentProblem):
    """The page did not answer in time; what it was asked is in the sentence."""

    code = "page-timeout"

    def __init__(self, doing: str, seconds: float) -> None:
        super().__init__(
            f"the page did not finish {doing} within {seconds:g} s",
            "free this machine of other work, or look for an endless loop in the page",
        )


class PageCrashed(EnvironmentProblem):
    """The page's renderer process crashed."""

    code = "page-crashed"

    def __init__(self, doing: str, ending: Ending) -> None:
        how = f" ({ending.how})" if ending.how else ""
        super().__init__(f"the page crashed{how} while {doing}", ending.next_step)


class BrowserDied(EnvironmentProblem):
    """The browser, or the driver between it and us, is gone."""

    code = "browser-died"

    def __init__(self, doing: str) -> None:
        super().__init__(
            f"the browser ended while {doing}",
            "look whether something killed it, such as the system's out-of-memory killer",
        )


class PageUnreachable(EnvironmentProblem):
    """The page could not be opened."""

    code = "page-unreachable"

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"{url}: {reason}", "build the page again and look at the console")


class PageFailure(EnvironmentProblem):
    """The page refused with a code of its own, which is kept."""

    code = "page-failure"

    def __init__(self, text: str, doing: str) -> None:
        typed = _TYPED.fullmatch(text)
        code, sentence = typed.groups() if typed else (self.code, text)
        super().__init__(f"{sentence} (while {doing})", NEXT_STEPS.get(code, ""))
        self.code = code


class Tab:
    """A page under watch.  Every method that asks the page names what it is ``doing``.

    Raises (all methods):
        PageTimeout: no answer within ``seconds``; the tab is of no more use.
        PageCrashed: the renderer crashed.
        BrowserDied: the browser or its driver is gone.
    """

    def __init__(self, page: Page, crashes: Crashes) -> None:
        self._page = page
        self._crashes, self._before = crashes, crashes.count
        self._crashed = asyncio.Event()
        self._protocol: CDPSession | None = None
        self.console: list[str] = []
        page.on("crash", lambda _: self._crashed.set())
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self._note(f"uncaught: {error}"))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self._note(message.text)

    def _note(self, line: str) -> None:
        if len(self.console) < CONSOLE_LINES:
            self.console.append(line[:CONSOLE_CHARACTERS])

    async def open(self, url: str, object_name: str, *, seconds: float) -> None:
        """Go to ``url`` and wait until the page's script has set ``object_name``.

        Raises:
            PageUnreachable: it does not load, or answers with an HTTP error.
        """
        doing = f"opening {url}"
        try:
            response = await self._page.goto(url, timeout=seconds * 1000)
        # A killed driver raises a bare Exception.
        except Exception as error:  # noqa: BLE001
            if self._crashed.is_set() or not isinstance(error, PlaywrightError):
                raise await self._explain(error, doing) from None
            reason = _CALLED.sub("", error.message.splitlines()[0])
            raise PageUnreachable(url, reason) from None
        if response is not None and not response.ok:
            raise PageUnreachable(url, f"HTTP status {response.status}")
        try:
            await self.evaluate(_WAIT_FOR, object_name, seconds=seconds, doing=doing)
        except PageTimeout:
            if not self.console:
                raise
            raise PageUnreachable(url, f"its script failed: {self.console[0]}") from None

    async def call(
        self, object_name: str, method: str, *arguments: Any, seconds: float, doing: str
    ) -> Any:
        """``await object_name.method(...arguments)`` in the page; JSON in, JSON out.

        Raises:
            PageFailure: the page rejected; its ``code: sentence`` is kept.
        """
        answer = await self.evaluate(
            _CALL, [object_name, method, list(arguments)], seconds=seconds, doing=doing
        )
        if "error" in answer:
            raise PageFailure(answer["error"], doing)
        return answer["value"]

    async def evaluate(
        self, expression: str, argument: Any = None, *, seconds: float, doing: str
    ) -> Any:
        """Evaluate JavaScript in the page."""
        try:
            async with asyncio.timeout(seconds):
                return await self._page.evaluate(expression, argument)
        except TimeoutError:
            raise PageTimeout(doing, seconds) from None
        except Exception as error:  # noqa: BLE001 - as in open
            raise await self._explain(error, doing) from None

    async def command(self, method: str, *, seconds: float, **parameters: Any) -> None:
        """Have the browser do ``method`` of its DevTools protocol to this page."""
        doing = f"asking the browser for {method}"
        try:
            async with asyncio.timeout(seconds):
                # Emulation ends with the session that asked for it: the tab keeps it.
                if self._protocol is None:
                    self._protocol = await self._page.context.new_cdp_session(self._page)
                await self._protocol.send(method, parameters)
        except TimeoutError:
            raise PageTimeout(doing, seconds) from None
        except Exception as error:  # noqa: BLE001 - as in open
            raise await self._explain(error, doing) from None

    async def _explain(self, error: Exception, doing: str) -> EnvironmentProblem:
        if self._crashed.is_set() or "crashed" in str(error):
            return PageCrashed(doing, await self._crashes.after(self._before))
        gone = self._page.is_closed() or "has been closed" in str(error)
        if isinstance(error, PlaywrightError) and not gone:
            # The page threw outside of a call: a bug in the page.
            return PageFailure(error.message.splitlines()[0], doing)
        return BrowserDied(doing)

    async def close(self, *, seconds: float) -> None:
        """Close the page, so that its renderer gives its memory back."""
        try:
            async with asyncio.timeout(seconds):
                await self._page.close()
        except TimeoutError:
            raise PageTimeout("closing", seconds) from None
        except Exception as error:  # noqa: BLE001 - as in open
            raise await self._explain(error, "closing") from None
