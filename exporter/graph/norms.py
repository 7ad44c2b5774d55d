"""Norms: mobius's, and one whose weight is an offset from 1."""

from __future__ import annotations

from typing import Any

import mobius
import onnx_ir as ir
from mobius.components import RMSNorm

from exporter.graph.settings import DecoderSettings


class OffsetNorm(RMSNorm):  # type: ignore[misc]
    """Multiplies by 1 + weight.

    The sum is made in float32, which onnxruntime folds while it loads; it has no float16
    addition on the CPU to fold with, so the GPU would add anew at each token.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__(width, eps=eps)
        self.weight._keep_float32 = True  # noqa: SLF001 - mobius's own switch, set by its users

    def forward(self, op: Any, hidden: ir.Value) -> ir.Value:
        """Normalised along the last axis."""
        weight = op.Add(self.weight, op.Constant(value_float=1.0))
        if mobius.get_build_dtype() != ir.DataType.FLOAT:
            weight = op.Cast(weight, to=mobius.get_build_dtype())
        epsilon = self.variance_epsilon
        output: ir.Value = op.RMSNormalization(hidden, weight, epsilon=epsilon, axis=-1)
        return output


def norm(settings: DecoderSettings, width: int) -> Any:
    """The family's norm over ``width`` values."""
    kind = OffsetNorm if settings.family.offset_norms else RMSNorm
    return kind(width, eps=settings.rms_norm_eps)
