"""Attention, in operators that both of onnxruntime-web's providers have.

GroupQueryAttention does all of it, windows and rotation included, in one kernel.  Its
WebGPU kernel ignores the attribute ``softcap`` though (onnxruntime-web 1.30: logits off
by 1 where the CPU's agree with transformers to 1e-5), so capped scores are spelt out.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

import mobius
import onnx_ir as ir
from mobius.components import Linear
from onnxscript import nn

from exporter.graph.norms import norm
from exporter.graph.settings import DecoderSettings, Layer
from exporter.graph.task import Carried

Pair = tuple[ir.Value, ir.Value]
_CONTRIB = {"_domain": "com.microsoft"}
#: GroupQueryAttention takes no other heads, nor rotations of other parts of them.
_HEAD_MULTIPLE = 16
#: Added to scores that must not count: finite in float16, and exp() of it is zero.
_HIDDEN = -1e4


class Step:
    """What all layers of one run share.  Each value is declared when it is first asked for."""

    def __init__(
        self, op: Any, input_ids: ir.Value, attention_mask: ir.Value, tables: Mapping[str, Pair]
    ) -> None:
        self._op = op
        self._ids = input_ids
        self._mask = attention_mask
        self._biases: dict[int | None, ir.Value] = {}
        self.tables = tables

    @cached_property
    def lengths(self) -> Pair:
        """GroupQueryAttention's seqlens_k int32 [batch], total_sequence_length int32 []."""
        op = self._op
        count = op.ReduceSum(self._mask, [1], keepdims=0)
        last = op.Cast(op.Sub(count, op.Constant(value_int=1)), to=ir.DataType.INT32)
        total = op.Cast(op.Gather(op.Shape(self._mask), 1), to=ir.DataType.INT32)
        return last, total

    @cached_property
    def span(self) -> Pair:
        """The first new position and the one after the last, each int64 [1]."""
        op = self._op
        end = op.Shape(self._mask, start=1, end=2)
        return op.Sub(end, op.Shape(self._ids, start=1, end=2)), end

    def bias(self, window: int | None) -> ir.Value:
        """What is added to scores [positions, total]: 0 where a position is seen."""
        if window not in self._biases:
            op = self._op
            start, end = (op.Squeeze(edge) for edge in self.span)
            zero, one = op.Constant(value_int=0), op.Constant(value_int=1)
            queries = op.Unsqueeze(op.Range(start, end, one), [1])
            distance = op.Sub(queries, op.Range(zero, end, one))
            seen = op.GreaterOrEqual(distance, zero)
            if window is not None:
                seen = op.And(seen, op.Less(distance, op.Constant(value_int=window)))
            chosen = op.Where(seen, op.Constant(value_float=0.0), op.Constant(value_float=_HIDDEN))
            self._biases[window] = op.Cast(chosen, to=mobius.get_build_dtype())
        return self._biases[window]


class Attention(nn.Module):
    """Projections around one GroupQueryAttention."""

    def __init__(self, settings: DecoderSettings, layer: Layer) -> None:
        super().__init__()
        self._heads = settings.num_attention_heads
        self._key_heads = settings.num_key_value_heads
        self._width = settings.head_dim
        self._scale = settings.attention_scale
        self._layer = layer
        self._rotated_width = 0
        if layer.rotary is not None:
            self._rotated_width = settings.rotaries[layer.rotary].width
        self._fused = settings.family.fused_projections
        hidden, bias = settings.hidden_size, settings.attn_qkv_bias
        queries, keys = self._heads * self._width, self._key_heads * self._width
        if self._fused:
            self.qkv_proj = Linear(hidden, queries + 2 * keys, bias=bias)
        else:
            self.q_proj = Linear(hidden, queries, bias=bias)
            self.k_proj = Linear(hidden, keys, bias=bias)
            self.v_proj = Linear(hidden, keys, bias=bias)
        self.o_proj = Linear(queries, hidden, bias=settings.output_bias)
        self.q_norm = self.k_norm = None
        if settings.family.query_key_norms:
            self.q_norm = norm(settings, self._width)
            self.k_norm = norm(settings, self._width)

    def carried(self, index: int) -> tuple[Carried, ...]:
        """Keys and values."""
        parts = ("key", "value")
        return tuple(Carried.cache(index, part, self._key_heads, self._width) for part in parts)

    def forward(self, op: Any, hidden: ir.Value, step: Step, past: Pair) -> tuple[ir.Value, Pair]:
        """The layer's output, and its keys and values [batch, kv_heads, total, head_dim]."""
        if self._fused:
            # A fused projection's output is GroupQueryAttention's packed query as it is.
            query, key, value = self.qkv_proj(op, hidden), None, None
        else:
            query = self._normalised(op, self.q_proj(op, hidden), self.q_norm)
            key = self._normalised(op, self.k_proj(op, hidden), self.k_norm)
            value = self.v_proj(op, hidden)
        output, present = self._attend(op, (query, key, value), step, past)
        return self.o_proj(op, output), present

    def _normalised(self, op: Any, heads: ir.Value, by: Any) -> ir.Value:
        if by is None:
            return heads
        apart = op.Reshape(heads, [0, 0, -1, self._width])
        output: ir.Value = op.Reshape(by(op, apart), [0, 0, -1])
        return output

    def _attend(
        self, op: Any, inputs: tuple[Any, ...], step: Step, past: Pair
    ) -> tuple[ir.Value, Pair]:
        for part, width in (("heads", self._width), ("rotations", self._rotated_width)):
            if width % _HEAD_MULTIPLE:
                raise ValueError(f"{part} of {width} values, no multiple of {_HEAD_MULTIPLE}")
        rotary, window = self._layer.rotary, self._layer.window
        local = {"local_window_size": window} if window is not None else {}
        output, keys, values = op.GroupQueryAttention(
            *inputs,
            *past,
            *step.lengths,
            *(step.tables[rotary] if rotary is not None else ()),
            num_heads=self._heads,
            kv_num_heads=self._key_heads,
            scale=self._scale,
            do_rotary=int(rotary is not None),
            _outputs=3,
            **local,
            **_CONTRIB,
        )
        return output, (keys, values)


class CappedAttention(Attention):
    """Attention whose scores are cap * tanh(scores / cap)."""

    def __init__(self, settings: DecoderSettings, layer: Layer) -> None:
        super().__init__(settings, layer)
        self._cap = settings.attention_cap

    def _attend(
        self, op: Any, inputs: tuple[Any, ...], step: Step, past: Pair
    ) -> tuple[ir.Value, Pair]:
        query, key, value = (self._apart(op, values) for values in inputs)
        query, key = (self._rotated(op, values, step) for values in (query, key))
        keys = op.Concat(past[0], key, axis=2)
        values = op.Concat(past[1], value, axis=2)
        # The heads that share a key stand one after the other: [batch, kv, group * new, width].
        grouped = op.Reshape(op.Mul(query, self._scale), [0, self._key_heads, -1, self._width])
        scores = op.MatMul(grouped, op.Transpose(keys, perm=[0, 1, 3, 2]))
        capped = op.Mul(op.Tanh(op.Div(scores, self._cap)), self._cap)
        total = step.span[1]
        by_head = op.Concat(op.Constant(value_ints=[0, self._heads, -1]), total, axis=0)
        by_key = op.Concat(op.Constant(value_ints=[0, self._key_heads, -1]), total, axis=0)
        seen = op.Add(op.Reshape(capped, by_head), step.bias(self._layer.window))
        weights = op.Reshape(op.Softmax(seen, axis=-1), by_key)
        output = op.Reshape(op.MatMul(weights, values), [0, self._heads, -1, self._width])
        return op.Reshape(op.Transpose(output, perm=[0, 2, 1, 3]), [0, 0, -1]), (keys, values)

    def _apart(self, op: Any, values: ir.Value) -> ir.Value:
        """[batch, new, heads * width] to [batch, heads, new, width]."""
        apart = op.Reshape(values, [0, 0, -1, self._width])
        output: ir.Value = op.Transpose(apart, perm=[0, 2, 1, 3])
        return output

    def _rotated(self, op: Any, values: ir.Value, step: Step) -> ir.Value:
        if self._layer.rotary is None:
            return values
        tables = step.tables[self._layer.rotary]
        output: ir.Value = op.RotaryEmbedding(values, step.span[0], *tables, **_CONTRIB)
        return output


#: By whether scores are capped.
ATTENTIONS: MappingProxyType[bool, type[Attention]] = MappingProxyType(
    {False: Attention, True: CappedAttention}
)
