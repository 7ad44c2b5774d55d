"""The whole way, small: a compressed checkpoint, its bundle, PyTorch and a real Chromium.

Nothing is faked here: the runtime that ships loads a bundle that the exporter wrote, on
both execution providers, and is compared with transformers in fp32.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.async_api import Browser as PlaywrightBrowser
from playwright.async_api import Page, async_playwright

from browser_harness.browsers import find_browser
from browser_harness.client import OBJECT, MeasurePage
from browser_harness.flags import flags_for
from browser_harness.launch import driver, launch
from browser_harness.measure import measure
from browser_harness.plan import PAGE, PLANS, Options, Plan, PlanName
from browser_harness.serve import StaticServer
from browser_harness.tab import PageFailure
from exporter.pipeline import export
from exporter.reference.make import make_reference
from manifests.bundle import MANIFEST_NAME, read_manifest
from manifests.page import LoadRequest
from manifests.report import Parity, Report, TargetReport
from targets import find_targets

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

RUNTIME = PAGE.parent / "bundle"
NAMES = ("webgpu-q4", "wasm-q4")
_BRIEF = replace(
    PLANS["full"],
    warm_loads=1,
    prefill_lengths=(16,),
    prefill_repetitions=1,
    decode_tokens=8,
    sampling_seconds=0.0,
    bandwidth_bytes=1 << 20,
    gpu_time_tokens=0,
    greedy_tokens=8,
)
#: Brief, but scoring everything on the CPU, and more than 16 tokens in a row on the GPU.
BRIEF: dict[PlanName, Plan] = {
    "full": _BRIEF,
    "software": replace(_BRIEF, score_texts=2, score_tokens=40),
}
#: What the browser runs of the shipped page by itself, before our own checks can.
SHIPPED = ("index.html", "runtime/chat.css", "runtime/chat.js", "runtime/tabwright.js", "sw.js")
POSITIONS = {"webgpu-q4": 80, "wasm-q4": 300}


@pytest.fixture(scope="module")
def bundle(
    tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    export(tiny_checkpoint("w4a16-g32"), find_targets(NAMES), out, runtime=RUNTIME)
    return out


@pytest.fixture(scope="module")
def report(bundle: Path, tiny_checkpoint: Callable[[str], Path]) -> Report:
    reference = bundle.parent / "reference.json"
    make_reference(tiny_checkpoint("w4a16-g32"), bundle, reference, device="cpu")
    return measure(bundle, reference, options=Options(adapter="software", plans=BRIEF))


def _parity(report: TargetReport) -> Parity:
    assert report.failure is None, report.failure
    assert report.parity is not None
    return report.parity


@pytest.mark.parametrize("name", NAMES)
def test_the_browser_answers_as_pytorch_does(name: str, report: Report) -> None:
    parity = _parity(report.targets[name])
    assert all(check.equal for check in parity.tokens)
    assert all(check.equal for check in parity.chats)
    assert parity.runtime.positions >= POSITIONS[name]
    assert parity.runtime.top1 == 1
    assert parity.runtime.max_abs_logit < 1e-3
    assert {check.outcome for check in parity.greedy} <= {"exact", "near-tie"}


def test_the_software_adapter_is_said(report: Report) -> None:
    gpu = report.targets["webgpu-q4"]
    assert gpu.software_adapter
    assert gpu.adapter is not None
    assert gpu.adapter.is_fallback
    assert any("software adapter" in note for note in gpu.notes)
    assert not report.targets["wasm-q4"].software_adapter


@pytest.mark.parametrize("name", NAMES)
def test_loads_and_memory_are_measured(name: str, report: Report, bundle: Path) -> None:
    target = report.targets[name]
    manifest = read_manifest(bundle)
    weights = manifest.weights["q4"].shards
    sizes = {file.path: file.size for file in manifest.files}
    [cold] = target.cold
    assert cold.timings.bytes_fetched >= sum(sizes[shard] for shard in weights)
    assert cold.bytes_on_wire >= cold.timings.bytes_fetched
    # What the report calls the target's size is what a visitor's browser fetches.
    # The page's own files are compared as they are served, and no part of the download.
    page_files = sum(sizes[name] for name in SHIPPED)
    assert target.target_bytes == cold.timings.bytes_fetched + page_files
    for warm in target.warm:
        assert warm.bytes_on_wire == 0
        assert warm.timings.bytes_fetched == 0
        assert warm.timings.bytes_from_store == cold.timings.bytes_fetched
    assert target.memory is not None
    assert target.memory.peak.renderer_pss > 0
    gpu_peak = max(point.gpu_buffers or 0 for point in target.memory.timeline)
    assert (gpu_peak > 0) == (name == "webgpu-q4")
    assert target.console == ()


@pytest.mark.parametrize("name", NAMES)
def test_the_report_tells_of_the_self_check(name: str, report: Report) -> None:
    target = report.targets[name]
    assert target.fallbacks == ()
    assert target.self_check is not None
    assert target.self_check.outcome == "passed"


def _small_files(bundle: Path) -> list[str]:
    # Types are for whoever compiles a page: no browser takes them.
    names = [file.path for file in read_manifest(bundle).files]
    return [name for name in names if not name.endswith(".d.ts")]


def test_the_page_refuses_a_flipped_bit_in_any_file(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    asyncio.run(_flip_each(copy))


async def _flip_each(bundle: Path) -> None:
    names = [*_small_files(bundle), MANIFEST_NAME]
    async with driver() as playwright:
        with StaticServer({"/bundle": bundle, "/harness": PAGE}) as site:
            for name in names:
                original = (bundle / name).read_bytes()
                damaged = bytearray(original)
                damaged[len(damaged) // 2] ^= 1
                (bundle / name).write_bytes(damaged)
                async with launch(playwright, adapter="none") as session:
                    page = MeasurePage(await session.new_tab(), call_seconds=60)
                    with pytest.raises(PageFailure) as caught:
                        await _load(page, site)
                assert Path(name).name in str(caught.value) or caught.value.code in {
                    "seal-broken",
                    "manifest-invalid",
                    "page-unreachable",
                }, (name, str(caught.value))
                (bundle / name).write_bytes(original)
            async with launch(playwright, adapter="none") as session:
                await _load(MeasurePage(await session.new_tab(), call_seconds=60), site)


def test_the_shipped_page_does_not_start_with_a_flipped_bit(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    asyncio.run(_flip_shipped(copy))


async def _flip_shipped(bundle: Path) -> None:
    index = (bundle / "index.html").read_text("utf-8")
    for name in ("runtime/chat.css", "runtime/chat.js"):
        assert _integrity(bundle / name) in index
    async with async_playwright() as playwright:
        found = find_browser(None, Path(playwright.chromium.executable_path))
        browser = await playwright.chromium.launch(
            executable_path=found.executable, args=list(flags_for("none")), chromium_sandbox=True
        )
        try:
            with StaticServer({"/": bundle}) as site:
                for name in SHIPPED:
                    original = (bundle / name).read_bytes()
                    damaged = bytearray(original)
                    damaged[_harmless(original)] ^= 1
                    (bundle / name).write_bytes(damaged)
                    assert not await _starts(browser, site.url), name
                    (bundle / name).write_bytes(original)
                assert await _starts(browser, site.url)
        finally:
            await browser.close()


def _integrity(path: Path) -> str:
    digest = base64.b64encode(hashlib.sha384(path.read_bytes()).digest()).decode()
    return f'integrity="sha384-{digest}"'


def _harmless(data: bytes) -> int:
    """A place where a flipped bit leaves the file's syntax whole: a letter of some message."""
    for word in (b"changed", b"message", b"margin", b"manifest"):
        if word in data:
            return data.index(word) + 2
    return len(data) // 2


async def _starts(browser: PlaywrightBrowser, url: str) -> bool:
    """Whether the chat page comes to the point where one can type, in a fresh profile."""
    context = await browser.new_context()
    try:
        page = await context.new_page()
        await page.goto(f"{url}/?target=wasm-q4")
        # A refused script leaves the page as it was sent; a refused load shows its error.
        outcome = await page.wait_for_function(
            """() => document.querySelector("#input:enabled") ? "ready"
                 : document.querySelector("#error:not([hidden])") ? "refused"
                 : performance.now() > 15000 && document.querySelector("#phase")
                     ?.textContent.includes("Starting.") ? "never ran" : null""",
            timeout=60_000,
        )
        return bool(await outcome.json_value() == "ready")
    finally:
        await context.close()


async def _load(page: MeasurePage, site: StaticServer) -> None:
    await page.tab.open(f"{site.url}/harness/index.html", OBJECT, seconds=30)
    url = f"{site.url}/bundle/{MANIFEST_NAME}"
    await page.load(LoadRequest(manifest_url=url, target="wasm-q4", threads=1), seconds=60)


_TURNS = """async (tokens) => {
  let turns = 0;
  const timer = setInterval(() => turns++);
  await tabwrightMeasure.generate([5, 6, 7], tokens, true);
  clearInterval(timer);
  return turns;
}"""


def test_the_page_stays_alive_while_it_generates(bundle: Path) -> None:
    asyncio.run(_count_turns(bundle))


async def _count_turns(bundle: Path) -> None:
    async with driver() as playwright, launch(playwright, adapter="none") as session:
        with StaticServer({"/bundle": bundle, "/harness": PAGE}) as site:
            page = MeasurePage(await session.new_tab(), call_seconds=60)
            await _load(page, site)
            turns = await page.tab.evaluate(_TURNS, 200, seconds=60, doing="counting turns")
    assert turns > 5


def test_the_chat_page_works_after_the_server_is_gone(bundle: Path, tmp_path: Path) -> None:
    asyncio.run(_chat_offline(bundle, tmp_path / "profile"))


async def _chat_offline(bundle: Path, profile: Path) -> None:
    async with async_playwright() as playwright:
        browser = find_browser(None, Path(playwright.chromium.executable_path))
        context = await playwright.chromium.launch_persistent_context(
            profile,
            executable_path=browser.executable,
            args=list(flags_for("none")),
            chromium_sandbox=True,
        )
        try:
            page = await context.new_page()
            foreign: list[str] = []
            with StaticServer({"/": bundle}) as site:
                page.on("request", lambda request: _note_foreign(request.url, site.url, foreign))
                await page.goto(f"{site.url}/?target=wasm-q4")
                first = await _chat(page)
                await page.evaluate("navigator.serviceWorker.ready.then(() => null)")
            await page.reload()
            assert await _chat(page) == first
            assert "offline" in (await page.text_content("#target") or "")
            assert foreign == []
        finally:
            await context.close()


def _note_foreign(url: str, own: str, foreign: list[str]) -> None:
    if not url.startswith((own, "data:", "blob:" + own)):
        foreign.append(url)


async def _chat(page: Page) -> str:
    """Say hello and give the answer's beginning."""
    await page.wait_for_selector("#input:enabled", timeout=60_000)
    await page.fill("#input", "hello")
    await page.click("#send")
    await page.wait_for_function(
        "() => document.querySelector('.message.assistant')?.textContent.length >= 20",
        timeout=60_000,
    )
    if await page.is_visible("#stop"):
        await page.click("#stop")
    await page.wait_for_selector("#send:visible", timeout=30_000)
    assert await page.is_hidden("#error"), await page.text_content("#error")
    answer = await page.text_content(".message.assistant")
    return (answer or "")[:20]
