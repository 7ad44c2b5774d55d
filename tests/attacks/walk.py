"""Reads a checkpoint as ``inspect`` and ``export`` do."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from exporter.checkpoint import Checkpoint, open_checkpoint
from exporter.checkpoint.folder import OPTIONAL_FILES, TOKENIZER_FILES
from exporter.checkpoint.tokenizer import open_tokenizer
from exporter.inspection import summarise
from exporter.write.store import MatrixRole
from exporter.write.weights import write_weights
from manifests.progress import silent
from targets import TARGETS

Shapes = Mapping[str, tuple[int, ...]]
ADAPTER = "adapter"


def shapes_of(folder: Path) -> Shapes:
    """What a graph of the valid input in ``folder`` would wait for."""
    return {name: weight.shape for name, weight in _open(folder).weights.items()}


def walk(folder: Path, shapes: Shapes) -> None:
    """Open ``folder``, tell what is in it, and write every weight of ``shapes``; no graph.

    Raises:
        TabwrightError: it is refused.
    """
    checkpoint = _open(folder)
    summary = summarise(checkpoint)
    told = (summary.architecture, summary.model_type, *summary.remarks)
    assert all(text.isprintable() and len(text) < 1000 for text in told), (
        "inspect tells it as it is"
    )
    open_tokenizer(checkpoint)
    for name in (*TOKENIZER_FILES, *OPTIONAL_FILES):
        checkpoint.documents.read(name)
    checkpoint.source()
    selected = checkpoint.select(shapes)
    roles: dict[str, MatrixRole] = {
        name: "tied" if "embed" in name else "linear"
        for name, shape in shapes.items()
        if len(shape) == 2
    }
    stage = folder / "stage"
    try:
        write_weights(stage, selected, roles, [TARGETS["webgpu-q4"]], silent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def export_whole(folder: Path, shapes: Shapes) -> None:
    """Export ``folder``, graph and all.

    Raises:
        TabwrightError: it is refused.
    """
    # Some seconds of imports, which only this takes.
    from exporter.pipeline import export

    del shapes
    page, out = folder / "page", folder / "out"
    page.mkdir(exist_ok=True)
    (page / "index.html").write_text("<!doctype html>")
    try:
        export(folder, (TARGETS["webgpu-q4"],), out, runtime=page)
    finally:
        shutil.rmtree(out, ignore_errors=True)


def _open(folder: Path) -> Checkpoint:
    adapter = folder / ADAPTER
    # Of a split model the first part: the others are found by its name.
    path, *_ = (*sorted(folder.glob("*.gguf")), folder)
    return open_checkpoint(path, adapter if adapter.is_dir() else None)
