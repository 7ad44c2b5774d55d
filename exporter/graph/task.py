"""The inputs and outputs of a decoder that is fed a text in steps.

mobius's tasks each know one set of states.  Here every layer says what it hands from one
step to the next.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import mobius
import onnx_ir as ir
from onnxscript import GraphBuilder

#: Those of the operators that mobius's components use, and the oldest format that has them.
_OPSETS = {"": 24, "com.microsoft": 1}
_IR_VERSION = 11
_PAST, _TOTAL = "past_sequence_length", "total_sequence_length"


@dataclass(frozen=True)
class Carried:
    """A tensor that a layer hands from one step to the next.

    Attributes:
        past: its name as an input.
        present: its name as an output.
        shape: as an input; a cache's length is called ``past_sequence_length``.
    """

    past: str
    present: str
    shape: tuple[int | str, ...]

    @classmethod
    def cache(cls, layer: int, part: str, heads: int, width: int) -> Carried:
        """Keys or values, which grow by each step's positions."""
        shape = ("batch_size", heads, _PAST, width)
        return cls(f"past_key_values.{layer}.{part}", f"present.{layer}.{part}", shape)

    @property
    def shape_after(self) -> tuple[int | str, ...]:
        """Its shape as an output."""
        return tuple(_TOTAL if dim == _PAST else dim for dim in self.shape)


class Generation(mobius.ModelTask):  # type: ignore[misc]
    """Wires a decoder into the conventional graph of docs/architecture.md.

    The decoder's ``carried()`` lists each layer's states; it is called with the token ids,
    the mask and the states' values by layer, and returns logits and the new values.
    """

    def build(self, module: Any, config: Any) -> mobius.ModelPackage:
        """A package with the one graph ``model``."""
        graph = ir.Graph([], [], nodes=[], name="decoder", opset_imports=dict(_OPSETS))
        builder = GraphBuilder(graph)
        integers = ir.DataType.INT64
        ids = builder.input("input_ids", integers, ["batch_size", "sequence_length"])
        mask = builder.input("attention_mask", integers, ["batch_size", _TOTAL])
        carried: list[tuple[Carried, ...]] = module.carried()
        pasts = [
            tuple(builder.input(state.past, config.dtype, state.shape) for state in of_layer)
            for of_layer in carried
        ]
        logits, presents = module(builder.op, ids, mask, pasts)
        builder.add_output(logits, "logits")
        for of_layer, values in zip(carried, presents, strict=True):
            for state, value in zip(of_layer, values, strict=True):
                # Inference of GroupQueryAttention's outputs takes packed queries for plain ones.
                value.shape = ir.Shape(state.shape_after)
                value.type = ir.TensorType(config.dtype)
                builder.add_output(value, state.present)
        model = ir.Model(graph, ir_version=_IR_VERSION)
        return mobius.ModelPackage({"model": model}, config=config)
