"""Gives a graph the inputs and outputs of a decode loop that stays on the GPU.

The conventional graph grows its cache, counts its mask on the CPU and returns logits.  The
resident one reads and writes a cache of fixed size in place, is told its lengths, and
chooses the next token itself, so that a step can be recorded once and replayed, its
output being the next one's input.
"""

from __future__ import annotations

import onnx_ir as ir

from exporter.lower.interface import (
    IDS,
    LOGITS,
    MASK,
    describe_states,
    drop_unused,
    find_head,
    find_logits,
    shape_of,
)

LAST = "seqlens_k"
TOTAL = "total_sequence_length"
ROWS = "kept_rows"
NEXT = "next_ids"
_ATTENTION = "GroupQueryAttention"
#: GroupQueryAttention's inputs that hold the lengths.
_LENGTHS = {5: LAST, 6: TOTAL}


def can_be_resident(skeleton: ir.Model) -> bool:
    """Whether all that a step carries over to the next lies in GroupQueryAttention's caches.

    Its kernel alone can write in place, and count in place of a mask, which nothing else
    may ask for then.  A sliding window makes it take another way, which needs to know the
    length on the CPU.
    """
    nodes = [node for node in skeleton.graph if node.op_type == _ATTENTION]
    cached = {value.name for node in nodes for value in node.inputs[3:5] if value is not None}
    carried = {state.input for state in describe_states(skeleton)}
    windowed = any("local_window_size" in node.attributes for node in nodes)
    return carried == cached and not windowed and not _needs_mask(skeleton.graph)


def _needs_mask(graph: ir.Graph) -> bool:
    """Whether an output depends on the mask in another way than by the attention's lengths."""
    waiting = [value for value in graph.inputs if value.name == MASK]
    reached: set[ir.Value] = set()
    while waiting:
        value = waiting.pop()
        if value in reached:
            continue
        reached.add(value)
        for node, index in value.uses():
            if node.op_type != _ATTENTION or index not in _LENGTHS:
                waiting += node.outputs
    return not reached.isdisjoint(graph.outputs)


def stay_resident(model: ir.Model) -> None:
    """Make the graph's inputs and outputs those of docs/architecture.md's resident graph.

    ``model`` is one that :func:`can_be_resident`.

    Raises:
        GraphUnexpected: the logits do not come from a product.
    """
    graph = model.graph
    lengths = {name: _input(graph, name, ir.DataType.INT32, [1]) for name in _LENGTHS.values()}
    for node in graph:
        if node.op_type == _ATTENTION:
            for index, name in _LENGTHS.items():
                node.replace_input_with(index, lengths[name])
    _drop_mask(graph)
    _choose_tokens(graph)
    _fix_shapes(model)


def _input(graph: ir.Graph, name: str, dtype: ir.DataType, shape: list[int | str]) -> ir.Value:
    dims = [ir.SymbolicDim(dim) if isinstance(dim, str) else dim for dim in shape]
    value = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims))
    graph.inputs.append(value)
    return value


def _drop_mask(graph: ir.Graph) -> None:
    """Remove the mask and what was counted from it, which nothing asks for any more."""
    drop_unused(graph)
    mask = next(value for value in graph.inputs if value.name == MASK)
    assert not mask.uses(), "the attention mask is needed"
    graph.inputs.remove(mask)


def _choose_tokens(graph: ir.Graph) -> None:
    """Take the head's product for the kept rows only, and the most likely token of each."""
    logits = find_logits(graph)
    head = find_head(logits)
    rows = _input(graph, ROWS, ir.DataType.INT64, ["kept_positions"])
    kept = ir.node("Gather", [head.inputs[0], rows], {"axis": 1})
    kept.outputs[0].name = f"{ROWS}.hidden"
    graph.insert_before(head, kept)
    head.replace_input_with(0, kept.outputs[0])
    positions = ir.SymbolicDim("kept_positions")
    wide = _widen(graph, logits)
    wide.shape = ir.Shape([1, positions, shape_of(logits)[2]])
    chosen = ir.node("ArgMax", [wide], {"axis": -1, "keepdims": 0})
    token = chosen.outputs[0]
    token.name, token.type = NEXT, ir.TensorType(ir.DataType.INT64)
    token.shape = ir.Shape([1, positions])
    graph.append(chosen)
    graph.outputs.append(token)


def _widen(graph: ir.Graph, logits: ir.Value) -> ir.Value:
    """The logits in float32, which whoever samples from them reads, as the graph's output."""
    if logits.dtype == ir.DataType.FLOAT:
        return logits
    cast = ir.node("Cast", [logits], {"to": ir.DataType.FLOAT.value})
    wide = cast.outputs[0]
    wide.name, wide.type = LOGITS, ir.TensorType(ir.DataType.FLOAT)
    logits.name = f"{LOGITS}.narrow"
    graph.append(cast)
    graph.outputs[graph.outputs.index(logits)] = wide
    return wide


def _fix_shapes(model: ir.Model) -> None:
    """One text at a time, and caches of one length before a step and after it.

    onnxruntime wants two names for it all the same.
    """
    values = {value.name: value for value in (*model.graph.inputs, *model.graph.outputs)}
    for state in describe_states(model):
        for name, length in ((state.input, "cache_length"), (state.output, "present_length")):
            _, heads, _, width = shape_of(values[name])
            values[name].shape = ir.Shape([1, heads, ir.SymbolicDim(length), width])
    values[IDS].shape = ir.Shape([1, shape_of(values[IDS])[1]])
