"""The runtime as a page gets it: in a worker, with the same answers as in the page's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import BrowserContext, Page, Worker, async_playwright

from browser_harness.browsers import find_browser
from browser_harness.flags import flags_for
from browser_harness.plan import PAGE
from browser_harness.serve import StaticServer
from exporter.pipeline import export
from targets import find_targets

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

_LOAD = """async (worker) => {
  const { load } = await import("/runtime/tabwright.js");
  globalThis.model = await load("/manifest.json", { target: "wasm-q4", threads: 1, worker });
  return model.info;
}"""
_ASK = """async () => {
  const tokens = [];
  const options = { maxNewTokens: 12, stopTokens: [] };
  for await (const { token } of model.generate([5, 6, 7], options)) tokens.push(token);
  const logprobs = [];
  for await (const item of model.logprobs([5, 6, 7], { top: 2 })) logprobs.push(item);
  const ids = await model.tokenize("hello");
  return { tokens, logprobs, ids, text: await model.detokenize(ids) };
}"""
#: An answer, and the same one ended by a text from its middle.
_STOP = """async () => {
  const options = { maxNewTokens: 40, stopTokens: [], temperature: 1.5, seed: 3 };
  const show = async (more) => {
    let shown = "";
    for await (const { text } of model.generate([5], { ...options, ...more })) shown += text;
    return shown;
  };
  const whole = await show({});
  const stop = whole.slice(whole.length >> 1, (whole.length >> 1) + 5);
  return [whole, stop, await show({ stop })];
}"""
#: What the page's thread got to do while the model answered, and how a call ends that is left.
_LEAVE = """async () => {
  let turns = 0;
  const timer = setInterval(() => turns++);
  let seen = 0;
  for await (const _ of model.generate([5], { stopTokens: [] })) if (++seen === 20) break;
  clearInterval(timer);
  const control = new AbortController();
  let code;
  const options = { stopTokens: [], signal: control.signal };
  try {
    for await (const _ of model.generate([5], options)) control.abort();
  } catch (error) {
    code = error.code;
  }
  await model.dispose();
  const refused = await model.tokenize("x").catch((error) => error.code);
  return { turns, seen, code, refused };
}"""


@pytest.fixture(scope="module")
def bundle(
    tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("worker") / "bundle"
    export(
        tiny_checkpoint("w4a16-g32"),
        find_targets(("wasm-q4",)),
        out,
        runtime=PAGE.parent / "bundle",
    )
    return out


def _in_browser(bundle: Path, work: Callable[[BrowserContext, str], Any]) -> Any:
    async def run() -> Any:
        async with async_playwright() as playwright:
            found = find_browser(None, Path(playwright.chromium.executable_path))
            browser = await playwright.chromium.launch(
                executable_path=found.executable,
                args=list(flags_for("none")),
                chromium_sandbox=True,
            )
            try:
                with StaticServer({"/": bundle}) as site:
                    return await work(await browser.new_context(), site.url)
            finally:
                await browser.close()

    return asyncio.run(run())


async def _blank(context: BrowserContext, url: str) -> Page:
    """A page of the bundle's origin on which nothing runs."""
    page = await context.new_page()
    await page.goto(f"{url}/runtime/chat.css")
    return page


def _end_of(worker: Worker) -> asyncio.Event:
    ended = asyncio.Event()

    def note(_: Worker) -> None:
        ended.set()

    worker.once("close", note)
    return ended


def test_a_worker_answers_as_the_page_does_and_leaves_it_free(bundle: Path) -> None:
    async def work(context: BrowserContext, url: str) -> None:
        answers = {}
        for worker in (True, False):
            page = await _blank(context, url)
            info = await page.evaluate(_LOAD, worker)
            assert info["notes"] == []
            # ORT's own threads are workers too, but one thread needs none.
            assert len(page.workers) == (1 if worker else 0)
            answers[worker] = await page.evaluate(_ASK)
            whole, stop, shown = await page.evaluate(_STOP)
            assert len(stop) == 5
            assert shown == whole[: whole.index(stop)]
            ended = [_end_of(model_worker) for model_worker in page.workers]
            left = await page.evaluate(_LEAVE)
            assert left["turns"] > 0
            assert (left["seen"], left["code"], left["refused"]) == (20, "aborted", "disposed")
            for event in ended:
                await asyncio.wait_for(event.wait(), 10)
            await page.close()
        assert answers[True] == answers[False]
        assert len(answers[True]["tokens"]) == 12

    _in_browser(bundle, work)


def test_two_tabs_share_one_download(bundle: Path) -> None:
    async def work(context: BrowserContext, url: str) -> None:
        pages = [await _blank(context, url) for _ in range(2)]
        infos = await asyncio.gather(*(page.evaluate(_LOAD, True) for page in pages))
        fetched = [info["timings"]["bytes_fetched"] for info in infos]
        stored = [info["timings"]["bytes_from_store"] for info in infos]
        total = fetched[0] + stored[0]
        assert fetched[1] + stored[1] == total
        assert sum(fetched) == total

    _in_browser(bundle, work)
