"""Gives a graph the inputs and outputs that docs/architecture.md promises."""

from __future__ import annotations

import onnx_ir as ir

from exporter.lower.errors import GraphUnexpected
from exporter.lower.weights import integers

#: mobius's symbolic dimensions -> the names that transformers.js looks for.
DIMENSIONS = {
    "batch": "batch_size",
    "sequence_len": "sequence_length",
    "past_seq_len + seq_len": "total_sequence_length",
    "past_sequence_len": "past_sequence_length",
    "past_sequence_len + sequence_len": "total_sequence_length",
}
KEEP = "num_logits_to_keep"
LOGITS = "logits"
_INT64_MAX = (1 << 63) - 1


def name_dimensions(model: ir.Model) -> None:
    """Rename the symbolic dimensions of inputs and outputs."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = ir.Shape([_renamed(dim) for dim in _shape(value)])


def keep_last_logits(model: ir.Model) -> None:
    """Add the input ``num_logits_to_keep``: 0 keeps all positions, n the last n.

    Prefill needs the head's product for one position only; scoring needs all.

    Raises:
        GraphUnexpected: the logits do not come from a product.
    """
    graph = model.graph
    logits = next(value for value in graph.outputs if value.name == LOGITS)
    head = _head(logits)
    keep = ir.Value(name=KEEP, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    graph.inputs.append(keep)
    shaped = ir.node("Reshape", [keep, integers(graph, f"{KEEP}.vector", [-1])])
    start = ir.node("Neg", [shaped.outputs[0]])
    end = integers(graph, f"{KEEP}.end", [_INT64_MAX])
    axis = integers(graph, f"{KEEP}.axis", [1])
    kept = ir.node("Slice", [head.inputs[0], start.outputs[0], end, axis])
    for node, name in ((shaped, "shaped"), (start, "start"), (kept, "hidden")):
        node.outputs[0].name = f"{KEEP}.{name}"
    graph.insert_before(head, [shaped, start, kept])
    head.replace_input_with(0, kept.outputs[0])
    batch, _, vocabulary = _shape(logits)
    logits.shape = ir.Shape([batch, ir.SymbolicDim("kept_positions"), vocabulary])


def _shape(value: ir.Value) -> list[int | ir.SymbolicDim]:
    if value.shape is None:
        raise GraphUnexpected(f"{value.name} has no shape")
    return list(value.shape)


def _renamed(dim: int | ir.SymbolicDim) -> int | ir.SymbolicDim:
    if isinstance(dim, int):
        return dim
    if dim.value not in DIMENSIONS:
        raise GraphUnexpected(f"unknown dimension {dim.value}")
    return ir.SymbolicDim(DIMENSIONS[dim.value])


def _head(logits: ir.Value) -> ir.Node:
    """The product nearest to the logits; soft caps and casts may stand between."""
    value: ir.Value | None = logits
    while value is not None and (node := value.producer()) is not None:
        if "MatMul" in node.op_type:
            return node
        value = node.inputs[0]
    raise GraphUnexpected("no product above the logits")
