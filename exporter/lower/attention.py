"""Spells attention out, for devices whose kernel for it is slower than their products.

onnxruntime's CPU kernel of GroupQueryAttention reaches about a tenth of the speed of its
products on a long prompt; docs/decisions/0021 has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from exporter.lower.chain import Chain
from exporter.lower.interface import IDS, MASK, drop_unused, shape_of
from exporter.lower.weights import MICROSOFT, constant, integers

_ATTENTION = "GroupQueryAttention"
_FLOAT = ir.DataType.FLOAT
#: Added to scores that must not count: exp() of it is zero.
_HIDDEN = -1e4
#: What is understood; a node with more than that stays as it is.
_ATTRIBUTES = frozenset(
    {"do_rotary", "kv_num_heads", "local_window_size", "num_heads", "scale", "softcap"}
)
_INPUTS = 9


def spell_attention(model: ir.Model) -> None:
    """Replace every GroupQueryAttention by products and a Softmax.

    One text at a time, without padding, as the page's plain loop feeds it.  Heads that share
    a key are rows of one product.
    """
    graph = model.graph
    nodes = [node for node in graph if node.op_type == _ATTENTION and _understood(node)]
    if not nodes:
        return
    lengths = _Lengths.of(graph)
    biases: dict[int, ir.Value] = {}
    for node in nodes:
        heads = _Heads.of(node)
        if heads.window not in biases:
            biases[heads.window] = _bias(graph, lengths, heads.window)
        _replace(graph, node, heads, lengths, biases[heads.window])
    # What counted the mask for the kernel.
    drop_unused(graph)
    graph.sort()


def _understood(node: ir.Node) -> bool:
    extra = [value for value in node.inputs[_INPUTS:] if value is not None]
    return not extra and node.attributes.keys() <= _ATTRIBUTES


@dataclass(frozen=True)
class _Heads:
    """What a GroupQueryAttention says of itself; ``window`` and ``cap`` are 0 without one."""

    count: int
    keys: int
    width: int
    scale: float
    window: int
    cap: float
    rotated: bool

    @classmethod
    def of(cls, node: ir.Node) -> _Heads:
        past = node.inputs[3]
        assert past is not None
        width = shape_of(past)[3]
        assert isinstance(width, int)
        attributes = node.attributes
        return cls(
            count=attributes.get_int("num_heads"),
            keys=attributes.get_int("kv_num_heads"),
            width=width,
            scale=attributes.get_float("scale", 0.0) or width**-0.5,
            window=max(0, attributes.get_int("local_window_size", -1)),
            cap=attributes.get_float("softcap", 0.0),
            rotated=bool(attributes.get_int("do_rotary", 0)),
        )


@dataclass(frozen=True)
class _Lengths:
    """The first new position and the one after the last, each int64 [1]."""

    start: ir.Value
    end: ir.Value

    @classmethod
    def of(cls, graph: ir.Graph) -> _Lengths:
        inputs = {value.name: value for value in graph.inputs}
        chain = Chain("attention.lengths")
        end = chain.then("Shape", inputs[MASK], start=1, end=2)
        new = chain.then("Shape", inputs[IDS], start=1, end=2)
        start = chain.then("Sub", end, new)
        graph.insert_before(graph[0], chain.nodes)
        return cls(start, end)


def _bias(graph: ir.Graph, lengths: _Lengths, window: int) -> ir.Value:
    """What is added to scores [new positions, positions]: 0 where a position is seen."""
    chain = Chain(f"attention.bias.{window}")

    def scalar(name: str, value: float, dtype: ir.DataType) -> ir.Value:
        return constant(graph, f"attention.{name}", value, dtype)

    zero = scalar("zero", 0, ir.DataType.INT64)
    one = scalar("one", 1, ir.DataType.INT64)
    start, end = (chain.then("Squeeze", edge) for edge in (lengths.start, lengths.end))
    rows = chain.then("Range", start, end, one)
    queries = chain.then("Unsqueeze", rows, integers(graph, "attention.column", [1]))
    distance = chain.then("Sub", queries, chain.then("Range", zero, end, one))
    seen = chain.then("GreaterOrEqual", distance, zero)
    if window:
        width = scalar(f"window.{window}", window, ir.DataType.INT64)
        seen = chain.then("And", seen, chain.then("Less", distance, width))
    shown, hidden = scalar("shown", 0.0, _FLOAT), scalar("hidden", _HIDDEN, _FLOAT)
    bias = chain.then("Where", seen, shown, hidden)
    graph.insert_before(graph[0], chain.nodes)
    return bias


def _replace(
    graph: ir.Graph, node: ir.Node, heads: _Heads, lengths: _Lengths, bias: ir.Value
) -> None:
    output, key_out, value_out = node.outputs[:3]
    chain = Chain(f"{output.name}.spelt")
    past_keys, past_values = node.inputs[3:5]

    def reshape(value: ir.Value, *shape: int) -> ir.Value:
        name = "attention.shape." + ".".join(map(str, shape))
        return chain.then("Reshape", value, integers(graph, name, list(shape)))

    def apart(value: ir.Value | None) -> ir.Value:
        assert value is not None
        return chain.then("Transpose", reshape(value, 0, 0, -1, heads.width), perm=[0, 2, 1, 3])

    query, key, value = (apart(part) for part in _separate(graph, chain, node, heads))
    if heads.rotated:
        query, key = (_rotated(chain, part, node, heads, lengths) for part in (query, key))
    keys = chain.then("Concat", past_keys, key, axis=2)
    values = chain.then("Concat", past_values, value, axis=2)
    grouped = reshape(query, 0, heads.keys, -1, heads.width)
    scores = chain.then("FusedMatMul", grouped, keys, transB=1, alpha=heads.scale, domain=MICROSOFT)
    if heads.cap:
        cap = constant(graph, f"attention.cap.{heads.cap}", heads.cap, _FLOAT)
        scores = chain.then("Mul", chain.then("Tanh", chain.then("Div", scores, cap)), cap)
    by_head, by_key = (
        chain.then("Concat", integers(graph, f"attention.by.{n}", [0, n, -1]), lengths.end, axis=0)
        for n in (heads.count, heads.keys)
    )
    masked = chain.then("Add", chain.then("Reshape", scores, by_head), bias)
    weights = chain.then("Reshape", chain.then("Softmax", masked, axis=-1), by_key)
    attended = reshape(chain.then("MatMul", weights, values), 0, heads.count, -1, heads.width)
    joined = reshape(chain.then("Transpose", attended, perm=[0, 2, 1, 3]), 0, 0, -1)
    graph.insert_before(node, chain.nodes)
    for old, new in ((output, joined), (key_out, keys), (value_out, values)):
        new.name, new.shape, new.type = old.name, old.shape, old.type
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _separate(graph: ir.Graph, chain: Chain, node: ir.Node, heads: _Heads) -> list[ir.Value | None]:
    """Queries, keys and values [batch, positions, heads * width], which may come as one."""
    query, key, value = node.inputs[:3]
    if key is not None:
        return [query, key, value]
    name = f"attention.packed.{heads.count}.{heads.keys}.{heads.width}"
    widths = [heads.width * count for count in (heads.count, heads.keys, heads.keys)]
    return list(chain.split("Split", query, integers(graph, name, widths), parts=3, axis=-1))


def _rotated(
    chain: Chain, value: ir.Value, node: ir.Node, heads: _Heads, lengths: _Lengths
) -> ir.Value:
    cosines, sines = node.inputs[7:9]
    assert cosines is not None
    width = shape_of(cosines)[1]
    assert isinstance(width, int)
    # Only a rotation of a part of the heads is told its width, and then their number.
    part = {"rotary_embedding_dim": 2 * width, "num_heads": heads.count}
    attributes = {} if 2 * width == heads.width else part
    inputs = (value, lengths.start, cosines, sines)
    return chain.then("RotaryEmbedding", *inputs, domain=MICROSOFT, **attributes)
