"""Puts stored weights under a float skeleton.

A linear is ``Transpose -> MatMul`` over an initializer [N, K], an embedding a ``Gather``
from one [V, K].  What replaces them is what the target has: see ``MATMULS`` and ``GATHERS``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

from exporter.lower.dequantized import dequantized_product
from exporter.lower.errors import GraphUnexpected
from exporter.lower.unpacked import unpacked_gather
from exporter.lower.weights import MICROSOFT, external, floats, integers
from exporter.write.store import Matrix, StoredWeights
from targets import Target


@dataclass(frozen=True)
class Site:
    """A product or gather to be replaced: ``source`` is its other input."""

    graph: ir.Graph
    source: ir.Value | None
    matrix: Matrix
    target: Target
    store: StoredWeights


def lower_matrices(model: ir.Model, target: Target, store: StoredWeights) -> None:
    """Replace every linear and embedding; drop the float weights.

    Raises:
        GraphUnexpected: a weight is used by another operator.
    """
    graph = model.graph
    for matrix in store.matrices:
        weight = graph.initializers[matrix.name]
        for usage in list(weight.uses()):
            node = usage.node
            if node.op_type == "Gather":
                site = Site(graph, node.inputs[1], matrix, target, store)
                _replace(graph, node, GATHERS[target.gather](site))
            elif node.op_type == "Transpose":
                for product in [inner.node for inner in node.outputs[0].uses()]:
                    if product.op_type != "MatMul":
                        raise GraphUnexpected(f"{matrix.name} goes into {product.op_type}")
                    source = _in_stored_order(graph, product.inputs[0], matrix)
                    site = Site(graph, source, matrix, target, store)
                    _replace(graph, product, MATMULS[target.matmul](site))
                graph.remove(node, safe=True)
            else:
                raise GraphUnexpected(f"{matrix.name} goes into {node.op_type}")
        del graph.initializers[matrix.name]
    # A weight that several products share was made for whichever was replaced first.
    graph.sort()
    model.opset_imports[MICROSOFT] = 1


def lower_vectors(model: ir.Model, target: Target, store: StoredWeights) -> None:
    """Put norms and biases in place, cast to the target's activations.

    A vector that the skeleton keeps in float32 whatever the activations are stays so; one
    that it has no use for is in the bundle for its ledger only.
    """
    graph = model.graph
    for vector in store.vectors:
        weight = graph.initializers.pop(vector.name)
        if not weight.uses():
            continue
        wanted = "float32" if weight.dtype == ir.DataType.FLOAT else target.activation_dtype
        value = floats(graph, vector.name, vector.values, vector.dtype, wanted, vector.shape)
        weight.replace_all_uses_with(value)


def _replace(graph: ir.Graph, node: ir.Node, new: list[ir.Node]) -> None:
    graph.insert_before(node, new)
    old, result = node.outputs[0], new[-1].outputs[0]
    result.name, result.shape, result.type = old.name, old.shape, old.type
    old.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _in_stored_order(graph: ir.Graph, source: ir.Value | None, matrix: Matrix) -> ir.Value | None:
    """``source`` with its last axis in the order of the stored columns.

    Products of one source and one order share the Gather: in GPTQ's act-order q, k and v
    have the same, and so have gate and up.  Whoever makes floats of the codes takes it too:
    putting their columns back would make a second copy.
    """
    place = matrix.permutation
    if place is None or source is None:
        return source
    name = f"permutation.{place.file}.{place.offset}"
    order = external(graph, name, place, ir.DataType.INT32, (matrix.shape[1],))
    for usage in source.uses():
        if usage.node.op_type == "Gather" and usage.node.inputs[1] is order:
            return usage.node.outputs[0]
    gather = ir.node("Gather", [source, order], {"axis": -1})
    gather.outputs[0].name = f"{source.name}.{name}"
    producer = source.producer()
    if producer is None:
        graph.insert_before(graph[0], gather)
    else:
        graph.insert_after(producer, gather)
    return gather.outputs[0]


def _matmul_nbits(site: Site) -> list[ir.Node]:
    """com.microsoft.MatMulNBits.

    No accuracy_level: level 4 would quantise the activations to int8.
    """
    matrix = site.matrix
    rows, columns = matrix.shape
    inputs = [site.source, _blocked_codes(site), _scales(site, (rows, matrix.blocks))]
    if matrix.zero_points is not None:
        shape = (rows, matrix.zero_points.length // rows)
        name = f"{matrix.name}.zero_points"
        inputs.append(external(site.graph, name, matrix.zero_points, ir.DataType.UINT8, shape))
    attributes = {"K": columns, "N": rows, "bits": matrix.bits, "block_size": matrix.block_size}
    return [ir.node("MatMulNBits", inputs, attributes, domain=MICROSOFT)]


def _gather_block_quantized(site: Site) -> list[ir.Node]:
    """com.microsoft.GatherBlockQuantized over the very tensor that MatMulNBits reads.

    Gathering from [V, K/block, bytes] instead of [V, K] lets a tied head and embedding
    be one initializer, hence one buffer on the GPU.
    """
    matrix = site.matrix
    rows, columns = matrix.shape
    attributes = {
        "bits": matrix.bits,
        "block_size": matrix.block_size,
        "gather_axis": 0,
        "quantize_axis": 2,
    }
    inputs = [_blocked_codes(site), site.source, _scales(site, (rows, matrix.blocks, 1))]
    gather = ir.node("GatherBlockQuantized", inputs, attributes, domain=MICROSOFT)
    gather.outputs[0].name = f"{matrix.name}.gathered"
    shape = integers(site.graph, f"{matrix.name}.row_shape", [0, 0, columns])
    return [gather, ir.node("Reshape", [gather.outputs[0], shape])]


def _dequantized_matmul(site: Site) -> list[ir.Node]:
    """A float product over a DequantizeLinear of the codes."""
    return dequantized_product(site.graph, site.matrix, site.store, site.source)


def _unpacked_gather(site: Site) -> list[ir.Node]:
    """A Gather of codes, made floats by operators that every CPU build has."""
    scales = _scales(site, (site.matrix.shape[0], site.matrix.blocks))
    return unpacked_gather(site.graph, site.matrix, scales, site.source)


def _blocked_codes(site: Site) -> ir.Value:
    matrix = site.matrix
    shape = (matrix.shape[0], matrix.blocks, matrix.block_size * matrix.bits // 8)
    return external(site.graph, f"{matrix.name}.codes", matrix.codes, ir.DataType.UINT8, shape)


def _scales(site: Site, shape: tuple[int, ...]) -> ir.Value:
    """Scales in ``shape``: a gather wants another rank than a product."""
    matrix, wanted = site.matrix, site.target.activation_dtype
    name = f"{matrix.name}.scales" if len(shape) == 2 else f"{matrix.name}.gather_scales"
    return floats(site.graph, name, matrix.scales, matrix.scale_dtype, wanted, shape)


_Replacement = Callable[[Site], list[ir.Node]]
MATMULS: dict[str, _Replacement] = {
    "matmul-nbits": _matmul_nbits,
    "dequantize-linear": _dequantized_matmul,
}
GATHERS: dict[str, _Replacement] = {
    "gather-block-quantized": _gather_block_quantized,
    "unpacked": _unpacked_gather,
}
