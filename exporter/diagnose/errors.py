"""Why a bundle cannot be diagnosed."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import BadInput


class NotDiagnosable(BadInput):
    """There is nothing in PyTorch to compare the graph's tensors with."""

    code = "not-diagnosable"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: its tensors have no counterpart in PyTorch: {reason}",
            "compare its answers instead: 'tabwright reference' and 'tabwright measure'",
        )
