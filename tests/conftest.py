"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints import VARIANTS, write_checkpoint
from tests.made_once import made_once

# Tests never ask a hub for anything; a name that is not a local path is a bug.
os.environ["HF_HUB_OFFLINE"] = "1"

CheckpointFactory = Callable[[str], Path]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointFactory:
    """Give the checkpoint of a variant in :data:`tests.checkpoints.VARIANTS`.

    Each is written once per session; a test that changes files works on a copy.
    """

    def write(variant: str, folder: Path) -> Path:
        return write_checkpoint(VARIANTS[variant], folder)

    return made_once(write, tmp_path_factory)


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The least that an export takes for the page's files; nobody changes it."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "runtime").mkdir()
    (folder / "runtime" / "tabwright.js").write_text("export {}")
    return folder
