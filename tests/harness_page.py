"""The measuring page in a browser, for tests that ask it themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from browser_harness.client import OBJECT
from browser_harness.flags import AdapterKind
from browser_harness.launch import driver, launch
from browser_harness.plan import PAGE
from browser_harness.serve import StaticServer
from browser_harness.tab import Tab


@asynccontextmanager
async def harness_tab(
    folders: Mapping[str, Path], adapter: AdapterKind
) -> AsyncIterator[tuple[Tab, str]]:
    """A fresh browser's tab with the measuring page, and the URL of the server it is from.

    Args:
        folders: what is served besides, by path; ``/bundle`` is among them, for the page
            takes the runtime from there.
        adapter: the WebGPU adapter that the browser is started for.
    """
    async with driver() as playwright, launch(playwright, adapter=adapter) as session:
        with StaticServer({**folders, "/harness": PAGE}) as site:
            tab = await session.new_tab()
            await tab.open(f"{site.url}/harness/index.html", OBJECT, seconds=60)
            yield tab, site.url
            await tab.close(seconds=30)
