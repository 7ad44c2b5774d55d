"""What the browser tests share: a place for temporary files, and a look for leftovers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.leftovers import left_behind, own_temporary_folder

FAKE_PAGE = Path(__file__).parent / "fake_page"


@pytest.fixture(scope="session", autouse=True)
def temporary() -> Iterator[Path]:
    with own_temporary_folder() as folder:
        yield folder


@pytest.fixture
def nothing_left(temporary: Path) -> Iterator[None]:
    """Fails the test when it leaves a process, a file or a port behind."""
    before = left_behind(temporary)
    yield
    assert left_behind(temporary) - before == set()
