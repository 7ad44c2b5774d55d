"""What the browser tests share: a server for the fake page, and a look for leftovers."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from browser_harness.serve import StaticServer

FAKE_PAGE = Path(__file__).parent / "fake_page"


def leftovers() -> list[str]:
    """Profile folders of ours, and processes that run on one of them."""
    root = Path(tempfile.gettempdir())
    found = [str(folder) for folder in root.glob("tabwright-profile-*")]
    for process in psutil.process_iter():
        try:
            line = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if "--user-data-dir" in line and "tabwright-profile-" in line:
            found.append(f"{process.pid} {line[:120]}")
    return found


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Fails the test when it leaves a browser process or a profile folder behind."""
    before = set(leftovers())
    yield
    assert [item for item in leftovers() if item not in before] == []


@pytest.fixture
def site() -> Iterator[StaticServer]:
    with StaticServer({"/harness": FAKE_PAGE}) as server:
        yield server
