"""What the browser tests share: a server for the fake page, and a look for leftovers."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from browser_harness.serve import StaticServer

FAKE_PAGE = Path(__file__).parent / "fake_page"


@pytest.fixture(scope="session", autouse=True)
def temporary() -> Iterator[Path]:
    """A folder for temporary files that only this process and its children use.

    Another run of these tests, or of tabwright, has its profiles elsewhere.  The path is
    short: Chromium puts a socket in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        yield folder
    shutil.rmtree(folder)


def leftovers(temporary: Path) -> list[str]:
    """Profile folders below ``temporary``, and processes that run on one of them."""
    found = [str(folder) for folder in temporary.glob("tabwright-profile-*")]
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if f"--user-data-dir={temporary}/tabwright-profile-" in line:
            found.append(f"{process.pid} {line[:120]}")
    return found


@pytest.fixture
def nothing_left(temporary: Path) -> Iterator[None]:
    """Fails the test when it leaves a browser process or a profile folder behind."""
    before = set(leftovers(temporary))
    yield
    assert [item for item in leftovers(temporary) if item not in before] == []


@pytest.fixture
def site() -> Iterator[StaticServer]:
    with StaticServer({"/harness": FAKE_PAGE}) as server:
        yield server
