"""What several tests read and none changes: made when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest


def made_once(
    make: Callable[[str, Path], Path], folders: pytest.TempPathFactory
) -> Callable[[str], Path]:
    """Give what ``make`` makes of a name in a new folder, called by that name."""

    @cache
    def made(name: str) -> Path:
        return make(name, folders.mktemp("made") / name)

    return made
