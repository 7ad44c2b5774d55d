"""A checkpoint's texts: its configs, tokenizer and chat template."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Documents(Protocol):
    """Files by the names that a Hugging Face checkpoint gives them."""

    def read(self, name: str) -> bytes | None:
        """The file called ``name``, or None when there is none."""
        ...


class FolderDocuments:
    """Those of a checkpoint folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes | None:
        """The file called ``name``, or None when there is none."""
        path = self._folder / name
        return path.read_bytes() if path.is_file() else None
