"""Gives a graph the inputs and outputs that docs/architecture.md promises."""

from __future__ import annotations

import onnx_ir as ir

from exporter.lower.errors import GraphUnexpected
from exporter.lower.weights import integers
from manifests.bundle import State

KEEP = "num_logits_to_keep"
IDS = "input_ids"
MASK = "attention_mask"
LOGITS = "logits"
#: What may stand between the head's product and the logits: all work value by value.
_AFTER_HEAD = frozenset({"Add", "Cast", "Div", "Identity", "Mul", "Tanh"})
_INT64_MAX = (1 << 63) - 1


def keep_last_logits(model: ir.Model) -> None:
    """Add the input ``num_logits_to_keep``: 0 keeps all positions, n the last n.

    Prefill needs the head's product for one position only; scoring needs all.

    Raises:
        GraphUnexpected: the logits do not come from a product.
    """
    graph = model.graph
    logits = find_logits(graph)
    head = find_head(logits)
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
    batch, _, vocabulary = shape_of(logits)
    logits.shape = ir.Shape([batch, ir.SymbolicDim("kept_positions"), vocabulary])


def describe_states(model: ir.Model) -> tuple[State, ...]:
    """What the graph hands from one call to the next: its ``past`` and ``present`` values.

    They stand in one order among inputs and outputs.
    """
    pasts = [value for value in model.graph.inputs if _called(value, "past")]
    presents = [value for value in model.graph.outputs if _called(value, "present")]
    return tuple(
        State.model_validate(
            {
                "input": past.name,
                "output": present.name,
                "dtype": "float16" if past.dtype == ir.DataType.FLOAT16 else "float32",
                "shape": [dim if isinstance(dim, int) else dim.value for dim in shape_of(past)],
            }
        )
        for past, present in zip(pasts, presents, strict=True)
    )


def _called(value: ir.Value, prefix: str) -> bool:
    return str(value.name).startswith(prefix)


def shape_of(value: ir.Value) -> list[int | ir.SymbolicDim]:
    """The dimensions of an input or output.

    Raises:
        GraphUnexpected: it has none.
    """
    if value.shape is None:
        raise GraphUnexpected(f"{value.name} has no shape")
    return list(value.shape)


def find_logits(graph: ir.Graph) -> ir.Value:
    """The graph's logits [batch, positions, vocabulary]."""
    return next(value for value in graph.outputs if value.name == LOGITS)


def find_head(logits: ir.Value) -> ir.Node:
    """The product whose values are the logits; soft caps and casts may stand between.

    Raises:
        GraphUnexpected: there is none.
    """
    node = logits.producer()
    while node is not None and node.op_type in _AFTER_HEAD:
        node = next(filter(None, (_maker(value) for value in node.inputs)), None)
    if node is None or "MatMul" not in node.op_type:
        raise GraphUnexpected("no product above the logits")
    return node


def drop_unused(graph: ir.Graph) -> None:
    """Remove the nodes and constants whose values nobody asks for.

    Initializers that wait for a weight stay: it may be in the bundle for its ledger only.
    """
    wanted = set(graph.outputs)
    for node in reversed(graph):
        if not any(value in wanted or value.uses() for value in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if value.const_value is not None and not value.uses():
            del graph.initializers[name]


def _maker(value: ir.Value | None) -> ir.Node | None:
    """The node that computes ``value``; None for a weight or a constant."""
    node = None if value is None else value.producer()
    return None if node is None or node.op_type == "Constant" else node
