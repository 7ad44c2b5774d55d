"""Short convolutions, which LFM2 has in most layers in attention's place.

As transformers' Lfm2ShortConv computes them.
"""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from mobius.components import Linear
from onnxscript import nn

from exporter.graph.attention import Step
from exporter.graph.settings import Convolution, DecoderSettings
from exporter.graph.task import Carried


class Filter(nn.Module):
    """A weight for each channel and tap, and maybe a bias for each channel."""

    def __init__(self, channels: int, taps: int, *, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter([channels, 1, taps])
        self.bias = nn.Parameter([channels]) if bias else None

    def forward(self, op: Any, values: ir.Value, past: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Filtered ``values`` [batch, channels, new], and the last taps - 1 of them.

        ``past`` [batch, channels, taps - 1] stands before them.
        """
        filtered, present = op.CausalConvWithState(
            values, self.weight, None, past, _outputs=2, _domain="com.microsoft"
        )
        if self.bias is not None:
            filtered = op.Add(filtered, op.Unsqueeze(self.bias, [1]))
        return filtered, present


class ShortConvolution(nn.Module):
    """A causal filter along positions, with a gate before it and one after it."""

    def __init__(self, settings: DecoderSettings, layer: Convolution) -> None:
        super().__init__()
        self._width, self._taps = settings.hidden_size, layer.taps
        self.in_proj = Linear(self._width, 3 * self._width, bias=layer.bias)
        self.conv = Filter(self._width, layer.taps, bias=layer.bias)
        self.out_proj = Linear(self._width, self._width, bias=layer.bias)

    def carried(self, index: int) -> tuple[Carried, ...]:
        """Positions that the next step's filter reaches back to, named as by transformers.js."""
        shape = ("batch_size", self._width, self._taps - 1)
        return (Carried(f"past_conv.{index}", f"present_conv.{index}", shape),)

    def forward(
        self, op: Any, hidden: ir.Value, step: Step, past: tuple[ir.Value, ...]
    ) -> tuple[ir.Value, tuple[ir.Value, ...]]:
        """The layer's output [batch, new, hidden_size], and its state."""
        del step
        gate, gate_after, values = op.Split(
            self.in_proj(op, hidden), axis=-1, num_outputs=3, _outputs=3
        )
        by_channel = op.Transpose(op.Mul(gate, values), perm=[0, 2, 1])
        filtered, present = self.conv(op, by_channel, *past)
        mixed = op.Mul(gate_after, op.Transpose(filtered, perm=[0, 2, 1]))
        return self.out_proj(op, mixed), (present,)
