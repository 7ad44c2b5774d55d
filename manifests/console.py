"""What a command may say to whoever started it.

The front door implements it; commands print nothing themselves, so that stdout is
the result and nothing else, as text or as JSON, whichever was asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import RenderableType

    from manifests.base import Schema
    from manifests.progress import Progress


class Console(Protocol):
    """Progress while a command works, then its result."""

    @property
    def progress(self) -> Progress:
        """Where work reports; shown on stderr."""

    @property
    def targets(self) -> frozenset[str]:
        """Names of every target there is: not all rooms may see the catalogue."""

    def show(self, document: Schema | Mapping[str, object], text: RenderableType) -> None:
        """Print a result on stdout: ``text``, or ``document`` under ``--format json``."""
