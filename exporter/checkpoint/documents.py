"""A checkpoint's texts: its configs, tokenizer and chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Protocol


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


def json_bytes(value: dict[str, Any]) -> bytes:
    """A JSON file of ``value``: equal values are equal bytes."""
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
