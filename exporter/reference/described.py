"""What transformers needs to know of a checkpoint, in a folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.checkpoint import open_checkpoint


@contextmanager
def described(checkpoint: Path, *names: str) -> Iterator[Path]:
    """A folder with the files ``names``: the checkpoint itself, where it is a folder.

    Raises:
        BadInput: the checkpoint is damaged.
    """
    if checkpoint.is_dir():
        yield checkpoint
        return
    documents = open_checkpoint(checkpoint).documents
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        folder = Path(scratch)
        for name in names:
            text = documents.read(name)
            if text is not None:
                (folder / name).write_bytes(text)
        yield folder
