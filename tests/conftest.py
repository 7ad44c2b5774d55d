"""Fixtures that every room's tests share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.checkpoints import VARIANTS, write_checkpoint

# Tests never ask a hub for anything; a name that is not a local path is a bug.
os.environ["HF_HUB_OFFLINE"] = "1"

CheckpointFactory = Callable[[str], Path]


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> CheckpointFactory:
    """Give the checkpoint of a variant in :data:`tests.checkpoints.VARIANTS`.

    Each is written once per session; a test that changes files works on a copy.
    """
    written: dict[str, Path] = {}

    def checkpoint(variant: str) -> Path:
        if variant not in written:
            folder = tmp_path_factory.mktemp("checkpoint") / variant
            written[variant] = write_checkpoint(VARIANTS[variant], folder)
        return written[variant]

    return checkpoint


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The least that an export takes for the page's files; nobody changes it."""
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "runtime").mkdir()
    (folder / "runtime" / "tabwright.js").write_text("export {}")
    return folder
