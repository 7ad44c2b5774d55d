"""Look at the browser's memory a few times a second while it works."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psutil

from browser_harness.processes import find_processes, process_type
from manifests.errors import EnvironmentProblem
from manifests.page import PageMemory
from manifests.report import Memory, MemoryPoint

#: Seconds between two looks.
INTERVAL = 0.35
#: Seconds after which new processes are searched for.
_SEARCH_SECONDS = 3.0
#: The share of its RSS by which a process has grown or shrunk before its PSS is read anew.
_MOVED = 0.01

#: Fields of psutil's memory_full_info, in order of preference: only Linux shares
#: pages out proportionally; elsewhere what is the process's alone comes closest.
_FIELDS = ("pss", "uss")

#: How a look may end when it is told to: done, cancelled, or with the page gone.
_ENDINGS = (PageMemory, asyncio.CancelledError, EnvironmentProblem)

AskPage = Callable[[], Coroutine[Any, Any, PageMemory]]


def _resident(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(next(getattr(info, field) for field in _FIELDS if hasattr(info, field)))


@dataclass
class _Known:
    """A process, its type, and what was last read of it, in bytes."""

    process: psutil.Process
    kind: str
    rss: int = 0
    pss: int = 0

    def look(self, *, anew: bool) -> int:
        rss = self.process.memory_info().rss
        if anew or abs(rss - self.rss) > _MOVED * self.rss:
            self.rss, self.pss = rss, _resident(self.process)
        return self.pss


class ProcessMemory:
    """Looks at the processes of one browser again and again, and takes little of a core.

    To read a PSS, the system walks the process's page tables: 40 ms for 1 GB, where a look
    is due every 350 ms.  So it is read anew only when the RSS has moved, which costs next to
    nothing, and all processes of the machine are searched only when a phase begins or
    :data:`_SEARCH_SECONDS` have passed.
    """

    def __init__(self, profile: Path) -> None:
        self._profile = profile
        self._known: list[_Known] = []
        self._phase = ""
        self._searched = -math.inf

    def look(self, phase: str, *, anew: bool = False) -> MappingProxyType[str, int]:
        """PSS in bytes of the largest renderer and of the GPU process, by process type.

        One page is open at a time: the other renderers are Chromium's own spare ones.

        Args:
            phase: what the browser is doing.
            anew: read everything, however little has moved.
        """
        now = time.monotonic()
        if anew or phase != self._phase or now - self._searched > _SEARCH_SECONDS:
            self._search()
            self._phase, self._searched = phase, now
        found: dict[str, int] = {}
        for known in self._known:
            with suppress(psutil.Error):
                found[known.kind] = max(found.get(known.kind, 0), known.look(anew=anew))
        return MappingProxyType(found)

    def _search(self) -> None:
        before = {known.process: known for known in self._known}
        self._known = []
        for process in find_processes(self._profile):
            with suppress(psutil.Error):
                kind = process_type(process)
                if kind in ("renderer", "gpu-process"):
                    self._known.append(before.get(process) or _Known(process, kind))


class Watch:
    """The memory timeline of one browser.

    Attributes:
        phase: what the browser is doing; whoever lets it do something sets this.
        ask_page: asks the open page for its own figures; ``None`` while there is none.
    """

    def __init__(self, profile: Path) -> None:
        self.phase = "start"
        self.ask_page: AskPage | None = None
        self._processes = ProcessMemory(profile)
        self._started = time.monotonic()
        self._points: list[MemoryPoint] = []
        self._gpu_peak = 0
        self._question: asyncio.Task[PageMemory] | None = None
        self._task: asyncio.Task[None] | None = None

    async def look(self, *, seconds: float = 0.0) -> MemoryPoint:
        """Add a point to the timeline.

        With ``seconds``, that long is waited for the page's figures, and all is read anew.
        """
        phase = self.phase
        answer = await self._page_memory(seconds or INTERVAL / 2)
        anew = seconds > 0
        sizes = await asyncio.to_thread(self._processes.look, phase, anew=anew)
        point = MemoryPoint(
            at_ms=(time.monotonic() - self._started) * 1e3,
            phase=phase,
            renderer_pss=sizes.get("renderer", 0),
            gpu_process_pss=sizes.get("gpu-process", 0),
            js_heap=answer and answer.js_heap_bytes,
            wasm_heap=answer and answer.wasm_heap_bytes,
            gpu_buffers=answer and answer.gpu_bytes,
        )
        if answer is not None:
            self._gpu_peak = max(self._gpu_peak, answer.gpu_peak_bytes)
        self._points.append(point)
        return point

    async def _page_memory(self, seconds: float) -> PageMemory | None:
        if self._question is None:
            if self.ask_page is None:
                return None
            self._question = asyncio.create_task(self.ask_page())
        # A busy page answers late.  It is not asked again until it has, so that no
        # questions pile up in it; meanwhile the processes are looked at all the same.
        done, _ = await asyncio.wait([self._question], timeout=seconds)
        if not done:
            return None
        self._question = None
        with suppress(EnvironmentProblem):
            return done.pop().result()
        return None

    def start(self) -> None:
        """Look every :data:`INTERVAL` seconds from now on."""
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Look no more.

        Raises:
            Exception: looking failed for a reason that is not the page's or ours.
        """
        tasks = [task for task in (self._task, self._question) if task is not None]
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            # A page that is gone answered the last question with an error of no interest.
            if ended is not None and not isinstance(ended, _ENDINGS):
                raise ended

    async def _run(self) -> None:
        while True:
            await self.look()
            await asyncio.sleep(INTERVAL)

    def memory(self, rest: MemoryPoint | None = None) -> Memory | None:
        """The timeline until now, with ``rest`` as the state at rest; ``None`` before a look.

        The peak holds each figure's own highest value; its time and phase are those of
        the largest sum of both processes.
        """
        if not self._points:
            return None
        top = max(self._points, key=lambda point: point.renderer_pss + point.gpu_process_pss)

        def highest(field: str) -> int | None:
            return max(
                (value for point in self._points if (value := getattr(point, field)) is not None),
                default=None,
            )

        seen = highest("gpu_buffers")
        peak = MemoryPoint(
            at_ms=top.at_ms,
            phase=top.phase,
            renderer_pss=highest("renderer_pss") or 0,
            gpu_process_pss=highest("gpu_process_pss") or 0,
            js_heap=highest("js_heap"),
            wasm_heap=highest("wasm_heap"),
            gpu_buffers=None if seen is None else max(seen, self._gpu_peak),
        )
        return Memory(peak=peak, rest=rest, timeline=tuple(self._points))


@asynccontextmanager
async def watching(profile: Path) -> AsyncIterator[Watch]:
    """Look at the browser on ``profile`` until the block ends."""
    watch = Watch(profile)
    watch.start()
    try:
        yield watch
    finally:
        await watch.stop()
