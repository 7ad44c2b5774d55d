"""What the faults share: a small bundle, and a place of their own for temporary files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from browser_harness.plan import PAGE
from browser_harness.serve import StaticServer
from exporter.pipeline import export
from targets import find_targets
from tests.browser.conftest import FAKE_PAGE
from tests.faults.catalogue import BOTH
from tests.faults.leftovers import nothing_left, temporary

__all__ = ["nothing_left", "temporary"]  # fixtures of every test beside or below this file


@pytest.fixture(scope="session")
def bundle(
    tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    export(tiny_checkpoint("w4a16-g32"), find_targets(BOTH), out, runtime=PAGE.parent / "bundle")
    return out


@pytest.fixture
def site() -> Iterator[StaticServer]:
    """A server of the page that breaks the harness's contract on demand."""
    with StaticServer({"/harness": FAKE_PAGE}) as server:
        yield server
