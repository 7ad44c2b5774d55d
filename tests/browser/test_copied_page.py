"""The page of the page's README, as a reader would copy it, beside a bundle."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from playwright.async_api import async_playwright

from browser_harness.browsers import find_browser
from browser_harness.flags import flags_for
from browser_harness.plan import PAGE
from exporter.pipeline import export
from targets import find_targets

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

README = Path("browser_harness/page/README.md")


def _page() -> str:
    [page] = re.findall(r"```html\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return str(page)


class _Silent(SimpleHTTPRequestHandler):
    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@contextmanager
def _any_server(folder: Path) -> Iterator[str]:
    """A server that knows nothing of bundles: no policy, no isolation, no ranges."""
    handler = partial(_Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def test_it_has_about_thirty_lines() -> None:
    assert len(_page().splitlines()) <= 35


def test_it_loads_the_model_and_answers(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(_page(), "utf-8")
    export(
        tiny_checkpoint("w4a16-g32"),
        find_targets(("wasm-q4",)),
        tmp_path / "model",
        runtime=PAGE.parent / "bundle",
    )
    asyncio.run(_ask(tmp_path))


async def _ask(folder: Path) -> None:
    async with async_playwright() as playwright:
        found = find_browser(None, Path(playwright.chromium.executable_path))
        browser = await playwright.chromium.launch(
            executable_path=found.executable, args=list(flags_for("none")), chromium_sandbox=True
        )
        try:
            page = await browser.new_page()
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            with _any_server(folder) as url:
                await page.goto(url)
                await page.wait_for_function(
                    "() => document.querySelector('#status').textContent.startsWith('wasm-q4: ')",
                    timeout=90_000,
                )
                await page.fill("#question", "ما عاصمة فرنسا؟")
                await page.click("button")
                await page.wait_for_function(
                    "() => document.querySelector('#answer').textContent.length >= 20",
                    timeout=60_000,
                )
                assert (await page.text_content("#status") or "").startswith("wasm-q4: ")
            assert faults == []
        finally:
            await browser.close()
