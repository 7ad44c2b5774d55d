"""The matrices of a foreign decoder, laid out as :mod:`exporter.lower` expects them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from exporter.checkpoint.onnx_file import OnnxUnsupported
from exporter.lower.errors import GraphUnexpected
from exporter.lower.interface import find_head, find_logits
from exporter.write.store import MatrixRole

IDS = "input_ids"
#: What may stand between the token ids and the embedding.
_BEFORE_GATHER = frozenset({"Cast", "Identity", "Reshape"})
REEXPORT = "export it with 'optimum-cli export onnx --task text-generation-with-past'"


def refused(path: Path, reason: str, next_step: str = REEXPORT) -> OnnxUnsupported:
    """The error that says of the graph in ``path`` what stands against it."""
    return OnnxUnsupported(path, f"the graph {reason}", next_step)


def insert_first(graph: ir.Graph, nodes: list[ir.Node], name: str) -> None:
    """Put ``nodes`` at the head of the graph, their outputs called after ``name``."""
    for index, node in enumerate(nodes):
        node.outputs[0].name = f"{name}.{index}"
    graph.insert_before(graph[0], nodes)


@dataclass(frozen=True)
class Site:
    """A matrix that products or gathers read.

    Attributes:
        transposed: the file holds it as [K, N].
    """

    role: MatrixRole
    transposed: bool


def find_sites(path: Path, graph: ir.Graph, weights: Iterable[str]) -> dict[str, Site]:
    """Find the matrices among the initializers ``weights`` and lay their products out.

    Raises:
        OnnxUnsupported: the logits are no product of one, or float types are mixed.
    """
    laid: dict[str, bool] = {}
    for name in weights:
        value = graph.initializers[name]
        transposed = _orientation(value)
        if transposed is not None:
            _lay_out(graph, value, transposed=transposed)
            laid[name] = transposed
    logits = find_logits(graph)
    try:
        head = find_head(logits)
    except GraphUnexpected:
        raise refused(path, "does not end with the head's product") from None
    found: dict[str, Site] = {}
    for name, transposed in laid.items():
        value = graph.initializers[name]
        users = [usage.node for usage in value.uses()]
        gathered = any(node.op_type == "Gather" for node in users)
        heads = any(node.outputs[0] is head.inputs[1] for node in users)
        role: MatrixRole = "head" if heads else "linear"
        if gathered:
            role = "tied" if heads else "embedding"
        if value.dtype != logits.dtype:
            raise refused(path, f"keeps {name} in another float type")
        found[name] = Site(role, transposed)
    if not any(site.role in ("head", "tied") for site in found.values()):
        raise refused(path, "has no weight whose products are the logits")
    return found


def _lay_out(graph: ir.Graph, weight: ir.Value, *, transposed: bool) -> None:
    """Make every product over ``weight`` read a Transpose of it as [N, K]."""
    if transposed:
        assert weight.shape is not None
        weight.shape = ir.Shape(weight.shape[::-1])
    users = [usage.node for usage in weight.uses()]
    direct = [node for node in users if node.op_type in ("Gemm", "MatMul")]
    if not direct:
        return
    turned = ir.node("Transpose", [weight], {"perm": [1, 0]})
    insert_first(graph, [turned], f"{weight.name}.columns")
    for node in direct:
        if node.op_type == "MatMul":
            node.replace_input_with(1, turned.outputs[0])
        else:
            _part(graph, node, turned.outputs[0])


def _part(graph: ir.Graph, gemm: ir.Node, columns: ir.Value) -> None:
    """Replace a Gemm by a MatMul and an Add."""
    result = gemm.outputs[0]
    parts = [ir.node("MatMul", [gemm.inputs[0], columns])]
    if len(gemm.inputs) > 2 and gemm.inputs[2] is not None:
        parts.append(ir.node("Add", [parts[0].outputs[0], gemm.inputs[2]]))
        parts[0].outputs[0].name = f"{result.name}.product"
    last = parts[-1].outputs[0]
    last.name, last.type, last.shape = result.name, result.type, result.shape
    graph.insert_before(gemm, parts)
    result.replace_all_uses_with(last, replace_graph_outputs=True)
    graph.remove(gemm, safe=True)


def _orientation(weight: ir.Value) -> bool | None:
    """Whether products read ``weight`` as [K, N]; None where it is no matrix of ours.

    Gathers by token id and products over its Transpose read it as [N, K].
    """
    if weight.shape is None or len(weight.shape) != 2:
        return None
    found = {_reads(usage.node, usage.idx) for usage in weight.uses()}
    return found.pop() if len(found) == 1 else None


def _reads(node: ir.Node, index: int) -> bool | None:
    match node.op_type, index:
        case "MatMul", 1:
            return True
        case "Gemm", 1:
            factors = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
            if (
                any(factor != 1.0 for factor in factors)
                or node.attributes.get_int("transA", 0) != 0
            ):
                return None
            return node.attributes.get_int("transB", 0) == 0
        case "Transpose", 0:
            usages = list(node.outputs[0].uses())
            order = node.attributes.get_ints("perm", [1, 0])
            ours = all(use.node.op_type == "MatMul" and use.idx == 1 for use in usages)
            return False if ours and usages and list(order) == [1, 0] else None
        case "Gather", 0:
            by_token = node.attributes.get_int("axis", 0) == 0 and _are_ids(node.inputs[1])
            return False if by_token else None
        case _:
            return None


def _are_ids(value: ir.Value | None) -> bool:
    while value is not None and (node := value.producer()) is not None:
        if node.op_type not in _BEFORE_GATHER:
            return False
        value = node.inputs[0]
    return value is not None and value.name == IDS
