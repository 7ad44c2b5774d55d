"""Linears kept as signed bytes, a scale beside them: W8A8's and LLM.int8()'s weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.errors import WrongShape
from exporter.checkpoint.safetensors_file import StoredTensor
from exporter.checkpoint.scales import Scales

_MIDDLE = np.uint8(128)


@dataclass(frozen=True)
class Int8:
    """int8 [N, K] as unsigned codes; see :class:`exporter.checkpoint.weights.Packed`."""

    stored: StoredTensor
    scale: Scales
    zero_point: StoredTensor | None
    format: str

    def __post_init__(self) -> None:
        """Check that the parts fit.

        Raises:
            WrongShape: codes or zero points are not int8, or as many as they should be.
        """
        parts = [self.stored]
        if self.zero_point is not None:
            parts.append(self.zero_point.expect(self.scale.stored.shape))
        for part in parts:
            if part.dtype != np.int8:
                raise WrongShape(part.path, part.name, f"is {part.dtype}, expected int8")

    @property
    def name(self) -> str:
        """The module's weight name."""
        return self.stored.name

    @property
    def path(self) -> Path:
        """The file its codes are in."""
        return self.stored.path

    @property
    def shape(self) -> tuple[int, int]:
        """Shape [N, K]."""
        return self.scale.shape

    @property
    def bits(self) -> Literal[8]:
        """Width of a code."""
        return 8

    @property
    def group_size(self) -> int:
        """Codes along K that share a scale."""
        return self.shape[1] // self.scale.groups

    @property
    def row_multiple(self) -> Literal[1]:
        """Rows come in any number."""
        return 1

    @property
    def scheme(self) -> str:
        """How the checkpoint keeps it, in words for the ledger."""
        kind = "symmetric" if self.zero_point is None else "asymmetric"
        return f"{self.format} int8 {self.scale.label} {kind}"

    def codes(self, start: int, stop: int) -> NDArray[np.uint8]:
        """The file's codes plus 128, uint8 [rows, K]."""
        return _unsigned(self.stored.read_rows(start, stop))

    def scales(self) -> NDArray[np.float32]:
        """Scales, float32 [N, K / group_size]."""
        return self.scale.read()

    def zero_points(self) -> NDArray[np.uint8] | None:
        """Zero points plus 128, uint8 [N, K / group_size], or None when all are 128."""
        if self.zero_point is None:
            return None
        zeros = _unsigned(self.zero_point.read()).reshape(-1, self.scale.groups)
        if (zeros == _MIDDLE).all():
            return None
        return np.broadcast_to(zeros, (self.shape[0], self.scale.groups))


def _unsigned(codes: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Add 128: in two's complement, flip the highest bit."""
    return codes.view(np.uint8) ^ _MIDDLE
