"""A bundle's target, loaded in a headless browser, for a caller that does not await."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from browser_harness.client import MeasurePage
from browser_harness.launch import driver, launch
from browser_harness.loads import Served, serve
from browser_harness.measure import require_target, settle
from browser_harness.plan import Options
from manifests.bundle import Manifest, read_manifest

T = TypeVar("T")


class OpenBundle:
    """A loaded target, until :meth:`close`, the last reference to it, or the process's end.

    Args:
        bundle: folder of the bundle.
        target: one of its targets.
        options: browser, adapter, threads and deadlines.

    Attributes:
        manifest: the bundle's.
        page: its methods are coroutines: hand them to :meth:`wait`.

    Raises:
        NotFound, BadDocument, SealBroken: the bundle cannot be read.
        TargetAbsent, PageNotBuilt, BrowserMissing, AdapterMissing: it cannot be started.
        EnvironmentProblem: browser or page fail, with their own code.
    """

    def __init__(self, bundle: Path, target: str, options: Options) -> None:
        self.manifest = read_manifest(bundle)
        require_target(bundle, self.manifest, target)
        # One loop for all calls, since a browser's objects belong to the loop they began in.
        self._runner = asyncio.Runner()
        stack = AsyncExitStack()
        self._end = weakref.finalize(self, _end, self._runner, stack)
        try:
            self.page = self.wait(
                stack.enter_async_context(_loaded(bundle, self.manifest, target, options))
            )
        except BaseException:
            self.close()
            raise

    def wait(self, question: Coroutine[Any, Any, T]) -> T:
        """What the page answers; Ctrl-C ends the waiting."""
        return self._runner.run(question)

    def close(self) -> None:
        """End the browser and the server; a second time does nothing."""
        self._end()


def _end(runner: asyncio.Runner, stack: AsyncExitStack) -> None:
    try:
        runner.run(stack.aclose())
    finally:
        runner.close()


@asynccontextmanager
async def _loaded(
    bundle: Path, manifest: Manifest, target: str, options: Options
) -> AsyncIterator[MeasurePage]:
    on_gpu = manifest.targets[target].execution_provider == "webgpu"
    async with driver() as playwright:
        adapter = await settle(playwright, options, on_gpu=on_gpu)
        with serve(bundle, options.page) as site:
            async with launch(playwright, executable=options.browser, adapter=adapter) as session:
                served = Served(
                    site=site,
                    target=target,
                    threads=options.threads,
                    plan=options.plan_for(adapter, on_gpu=on_gpu),
                    adapter=adapter,
                )
                yield await served.loaded(session)
