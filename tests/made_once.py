"""What several tests read and none changes: made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from exporter.pipeline import export
from targets import Target


def made_once(
    make: Callable[[str, Path], Path], folders: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Give what ``make`` makes of a name in a new folder, called by that name."""

    @cache
    def made(name: str) -> Path:
        return make(name, folders.mktemp("made") / name)

    return made


def exported_once(
    checkpoint_of: Callable[[str], Path],
    targets: tuple[Target, ...],
    page: Path,
    folders: pytest.TempPathFactory,
) -> Callable[[str], Path]:
    """Give the bundle of the checkpoint that ``checkpoint_of`` has by a name."""

    def make(name: str, out: Path) -> Path:
        export(checkpoint_of(name), targets, out, runtime=page)
        return out

    return made_once(make, folders)
