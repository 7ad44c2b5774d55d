"""Browsers and drivers that do not start, and folders that cannot be made or removed."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from browser_harness import launch as launching
from browser_harness import processes, profiles, watch
from browser_harness.browsers import BrowserMissing
from browser_harness.launch import BrowserFailed, DriverFailed, driver, launch
from browser_harness.profiles import Profile, ProfileFailed, ProfileLeft

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]


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


# One that ends at once, and one that says nothing.
@pytest.mark.parametrize("broken", ["raise SystemExit(3)", "import time; time.sleep(600)"])
def test_driver_that_does_not_start(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "node"
    node.write_text(f"#!{sys.executable}\n{broken}\n", "utf-8")
    node.chmod(0o755)
    monkeypatch.setenv("PLAYWRIGHT_NODEJS_PATH", str(node))
    monkeypatch.setattr(launching, "_DRIVER_SECONDS", 1.0)

    async def work() -> None:
        with pytest.raises(DriverFailed) as caught:
            async with driver():
                pass
        assert (caught.value.code, caught.value.exit_status) == ("driver-failed", 4)

    asyncio.run(work())


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
    assert watch.ProcessMemory(tmp_path).look("load")["renderer"] > 0
    monkeypatch.setattr(watch, "_resident", denied)
    assert watch.ProcessMemory(tmp_path).look("load") == {}


def test_a_process_is_read_again_only_when_it_has_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = iter([100, 200, 300])
    rss = SimpleNamespace(rss=1000)
    monkeypatch.setattr(watch, "find_processes", lambda _: [psutil.Process()])
    monkeypatch.setattr(watch, "process_type", lambda _: "renderer")
    monkeypatch.setattr(watch, "_resident", lambda _: next(sizes))
    monkeypatch.setattr(psutil.Process, "memory_info", lambda _: rss)
    memory = watch.ProcessMemory(tmp_path)
    assert memory.look("decode") == {"renderer": 100}
    rss.rss = 1009
    assert memory.look("decode") == {"renderer": 100}
    rss.rss = 1011
    assert memory.look("decode") == {"renderer": 200}
    assert memory.look("rest", anew=True) == {"renderer": 300}


def test_a_watch_that_broke_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    async def work() -> None:
        async with watch.watching(tmp_path):
            await asyncio.sleep(0.1)

    monkeypatch.setattr(watch.ProcessMemory, "look", broken)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(work())
