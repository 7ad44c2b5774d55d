"""Which values of a lowered graph are a PyTorch module's input or output.

The ledger's names are the bridge: an initializer is called after the parameter that it
holds, so the operator that uses it is that parameter's module.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import onnx_ir as ir

from manifests.bundle import Tensor
from manifests.diagnosis import Point

_LAYER = re.compile(r"\.layers\.(\d+)\.")
_PRODUCTS = ("MatMul", "FusedMatMul", "MatMulNBits", "Gemm")
#: Gives, besides the norm, the sum of its first two inputs as its fourth output.
_SKIP_NORM = "SkipSimplifiedLayerNormalization"
_SUM = 3
Points = dict[Point, ir.Value]


def find_points(graph: ir.Graph, ledger: Iterable[Tensor]) -> Points:
    """Inputs and outputs of every linear and norm, in the order of computation.

    A value that several modules share (q, k and v read one norm) is there once.  Embedding
    and head are left out: they may be one weight or many pieces, and the first hidden state
    and the logits stand for them.
    """
    modules = {
        row.name: row.name.rpartition(".")[0] for row in ledger if row.role in ("linear", "float")
    }
    weights = _weights(graph, modules)
    found: Points = {}
    seen: set[ir.Value] = set()
    for module, nodes in _by_module(graph, weights).items():
        first, last = nodes[0], nodes[-1]
        sides = {
            "input": _sum(first) if first.op_type == _SKIP_NORM else _activation(first, weights),
            "output": last.outputs[0],
        }
        for side, value in sides.items():
            if value is not None and value not in seen and _is_by_token(value, first):
                seen.add(value)
                point = Point.model_validate(
                    {"module": module, "side": side, "layer": _layer(module)}
                )
                found[point] = value
    return found


def _layer(module: str) -> int | None:
    match = _LAYER.search(f".{module}.")
    return int(match.group(1)) if match else None


def _weights(graph: ir.Graph, modules: dict[str, str]) -> dict[ir.Value, str]:
    """The module of each value that is computed from a parameter and constants alone."""
    found: dict[ir.Value, str] = {}
    for name, value in graph.initializers.items():
        for parameter, module in modules.items():
            if name == parameter or name.startswith(f"{parameter}."):
                found[value] = module
    constants = set(graph.initializers.values())
    for node in graph:
        inputs = [value for value in node.inputs if value is not None]
        if all(value in constants for value in inputs):
            constants.update(node.outputs)
            owners = [found[value] for value in inputs if value in found]
            if owners:
                found.update(dict.fromkeys(node.outputs, owners[0]))
    return found


def _by_module(graph: ir.Graph, weights: dict[ir.Value, str]) -> dict[str, list[ir.Node]]:
    """The nodes that apply each module's parameters, modules in the order of computation."""
    found: dict[str, list[ir.Node]] = {}
    for node in graph:
        owner = next((weights[v] for v in node.inputs if v is not None and v in weights), None)
        if owner is None or node.outputs[0] in weights:
            continue
        # A bias is added to its product; what uses a parameter by itself is no such module.
        if node.op_type in _PRODUCTS or "Norm" in node.op_type or owner in found:
            found.setdefault(owner, []).append(node)
    return found


def _activation(node: ir.Node, weights: dict[ir.Value, str]) -> ir.Value | None:
    return next((v for v in node.inputs if v is not None and v not in weights), None)


def _sum(node: ir.Node) -> ir.Value | None:
    """The residual that a fused norm was given; absent where nothing else reads it."""
    value = node.outputs[_SUM] if len(node.outputs) > _SUM else None
    if value is not None and not value.name:
        value.name = f"{node.outputs[0].name}.sum"
    return value


def _is_by_token(value: ir.Value, node: ir.Node) -> bool:
    """Whether its second axis counts tokens: [batch, tokens, ...], so that rows can be told."""
    shape = value.shape or node.outputs[0].shape
    return shape is not None and len(shape) >= 3 and not isinstance(shape[1], int)


def layers_of(points: Iterable[Point]) -> Iterator[Point]:
    """The first point of each layer, which is the hidden state that it is given.

    What comes after the last layer counts as one, what comes before the first as none.
    """
    last: int | None = -1
    for point in points:
        if point.layer != last:
            last = point.layer
            yield point
