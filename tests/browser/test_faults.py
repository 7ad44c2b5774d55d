"""However a run ends, it ends typed and leaves no process and no folder behind."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil
import pytest

from browser_harness import processes, profiles, watch
from browser_harness.browsers import BrowserMissing
from browser_harness.launch import BrowserFailed, Session, driver, launch
from browser_harness.measure import measure
from browser_harness.plan import Options
from browser_harness.processes import find_processes, process_type
from browser_harness.profiles import Profile, ProfileFailed, ProfileLeft
from browser_harness.serve import StaticServer
from browser_harness.tab import (
    BrowserDied,
    PageCrashed,
    PageFailure,
    PageTimeout,
    PageUnreachable,
    Tab,
)
from tests.browser.conftest import FAKE_PAGE
from tests.browser.fake_bundle import write_bundle

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

PAGE = "tabwrightMeasure"


@asynccontextmanager
async def opened(site: StaticServer) -> AsyncIterator[tuple[Session, Tab]]:
    async with (
        asyncio.timeout(60),
        driver() as playwright,
        launch(playwright, adapter="none") as session,
    ):
        tab = await session.new_tab()
        await tab.open(f"{site.url}/harness/index.html", PAGE, seconds=20)
        yield session, tab


def load(tab: Tab, target: str, seconds: float = 20) -> Awaitable[object]:
    request = {"target": target, "threads": 1, "manifest_url": "http://127.0.0.1:1/"}
    return tab.call(PAGE, "load", request, seconds=seconds, doing="loading")


def kill(session: Session, kind: str) -> None:
    for process in find_processes(session.profile):
        # The death of the browser takes the others along while we look at them.
        with suppress(psutil.NoSuchProcess):
            if process_type(process) == kind:
                process.kill()


def test_a_call_answers(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as (_, tab):
            assert await tab.call(PAGE, "tokenize", ["ab"], seconds=5, doing="tokenising") == [
                [ord("a") % 8, ord("b") % 8]
            ]

    asyncio.run(work())


def test_endless_loop_is_a_timeout(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as (_, tab):
            with pytest.raises(PageTimeout, match=r"loading within 0\.5 s"):
                await load(tab, "webgpu-loops", seconds=0.5)

    asyncio.run(work())


def test_promise_that_never_settles_is_a_timeout(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as (_, tab):
            with pytest.raises(PageTimeout):
                await load(tab, "wasm-sleeps", seconds=0.5)

    asyncio.run(work())


@pytest.mark.parametrize(("kind", "error"), [("renderer", PageCrashed), ("browser", BrowserDied)])
def test_killed_process(
    site: StaticServer, kind: str, error: type[PageCrashed | BrowserDied]
) -> None:
    async def work() -> None:
        async with opened(site) as (session, tab):
            call = asyncio.ensure_future(load(tab, "wasm-sleeps"))
            await asyncio.sleep(0.2)
            kill(session, kind)
            with pytest.raises(error, match="while loading"):
                await call

    asyncio.run(work())


def test_killed_driver(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as (_, tab):
            call = asyncio.ensure_future(load(tab, "wasm-sleeps"))
            await asyncio.sleep(0.2)
            for child in psutil.Process().children():
                if any("playwright" in argument for argument in child.cmdline()):
                    child.kill()
            with pytest.raises(BrowserDied):
                await call

    asyncio.run(work())


def test_rejection_keeps_the_page_s_code(site: StaticServer) -> None:
    async def work() -> None:
        async with opened(site) as (_, tab):
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
        async with opened(site) as (_, tab):
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


def test_no_browser(tmp_path: Path) -> None:
    async def work() -> None:
        async with driver() as playwright:
            with pytest.raises(BrowserMissing) as caught:
                async with launch(playwright, executable=tmp_path / "chromium", adapter="none"):
                    pass
            assert caught.value.exit_status == 4

    asyncio.run(work())


def test_browser_that_does_not_start(tmp_path: Path) -> None:
    broken = tmp_path / "chromium"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Chromium 1 && exit 0\nexit 3\n')
    broken.chmod(0o755)

    async def work() -> None:
        async with driver() as playwright:
            with pytest.raises(BrowserFailed, match=str(broken)):
                async with launch(playwright, executable=broken, adapter="none"):
                    pass

    asyncio.run(work())


HANGING = """
import asyncio, sys
from browser_harness.launch import driver, launch

async def main():
    async with driver() as playwright, launch(playwright, adapter="none") as session:
        print(session.profile, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


MEASURING = """
import functools, sys
from pathlib import Path

import browser_harness.plan
import tabwright

browser_harness.plan.Options = functools.partial(
    browser_harness.plan.Options, page=Path(sys.argv[1])
)
sys.exit(tabwright.call(["measure", sys.argv[2], "-o", sys.argv[3]]))
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_interrupted_measure_cleans_up_and_says_one_thing(
    tmp_path: Path, sent: signal.Signals
) -> None:
    write_bundle(tmp_path / "bundle", ("wasm-sleeps",))
    report = tmp_path / "report.json"
    run = subprocess.Popen(
        [sys.executable, "-c", MEASURING, str(FAKE_PAGE), str(tmp_path / "bundle"), str(report)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with run:
        try:
            assert run.stderr is not None
            assert run.stderr.readline().startswith("wasm-sleeps: fresh pages")
            # A terminal's Ctrl-C reaches the whole group, the driver included.
            os.killpg(run.pid, sent)
            out, complaints = run.communicate(timeout=60)
        finally:
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
    assert (run.returncode, out) == (130, "")
    (line,) = complaints.strip().splitlines()
    assert line.startswith("error[interrupted]")
    assert not report.exists()


def test_measuring_leaves_signal_handlers_alone(tmp_path: Path) -> None:
    def handler(*_: object) -> None: ...

    write_bundle(tmp_path, ("wasm-refuses",))
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        measure(tmp_path, options=Options(page=FAKE_PAGE))
        assert [signal.getsignal(number) for number in numbers] == [handler, handler]
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def test_no_room_for_a_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # No folder of the search list can be written to.
    monkeypatch.setattr(processes, "__file__", str(tmp_path / "reaper.py"))
    (tmp_path / "reaper.py").write_text(
        "import tempfile\ntempfile.mkdtemp(dir='/nowhere/at/all')\n", "utf-8"
    )
    with pytest.raises(ProfileFailed, match=r"No such file or directory.*nowhere") as caught:
        Profile().__enter__()
    assert (caught.value.code, caught.value.exit_status) == ("profile-failed", 4)


STUBBORN = """
import sys
print("/tmp/a-profile", flush=True)
sys.stdin.read()
sys.exit("still there")
"""


def test_what_is_left_is_told_and_hides_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "__file__", str(tmp_path / "reaper.py"))
    (tmp_path / "reaper.py").write_text(STUBBORN, "utf-8")
    with pytest.raises(ProfileLeft, match=r"a-profile.*still there"), Profile():
        pass
    with pytest.raises(KeyError) as caught, Profile():
        raise KeyError("the real one")
    assert "still there" in caught.value.__notes__[0]
    (tmp_path / "reaper.py").write_text(
        STUBBORN.replace("sys.stdin.read()", "import time; time.sleep(600)"), "utf-8"
    )
    monkeypatch.setattr(profiles, "_REAP_SECONDS", 0.2)
    with pytest.raises(ProfileLeft, match="not within"), Profile():
        pass


def test_a_process_that_may_not_be_looked_at_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_: object) -> int:
        raise psutil.AccessDenied(1)

    monkeypatch.setattr(watch, "find_processes", lambda _: [psutil.Process()])
    monkeypatch.setattr(watch, "process_type", lambda _: "renderer")
    assert watch.look_at_processes(tmp_path)["renderer"] > 0
    monkeypatch.setattr(watch, "_resident", denied)
    assert watch.look_at_processes(tmp_path) == {}


def test_a_watch_that_broke_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: Path) -> None:
        raise ZeroDivisionError

    async def work() -> None:
        async with watch.watching(tmp_path):
            await asyncio.sleep(0.1)

    monkeypatch.setattr(watch, "look_at_processes", broken)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(work())


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_run_leaves_nothing(sent: signal.Signals) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", HANGING],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    with run.stdout:
        profile = Path(run.stdout.readline().strip())
    assert profile.is_dir()
    assert find_processes(profile)
    run.send_signal(sent)
    run.wait(30)
    wait_until(lambda: not profile.exists() and not find_processes(profile), seconds=30)


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """The reaper of a killed run works on its own; it is given time, not trust."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
