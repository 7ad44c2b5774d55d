"""Gathers an embedding's codes and makes floats of the few rows that a step wants.

The CPU of onnxruntime-web's JSPI build has no GatherBlockQuantized.  Gathering from floats
that were made at load would hold 4 bytes a value for rows that are hardly ever read, and
a tied head's lie the other way round, for its product.
"""

from __future__ import annotations

import onnx_ir as ir

from exporter.lower.chain import Chain
from exporter.lower.weights import constant, external, integers
from exporter.write.store import Matrix

_BYTE = ir.DataType.UINT8
_FLOAT = ir.DataType.FLOAT


def unpacked_gather(
    graph: ir.Graph, matrix: Matrix, scales: ir.Value, ids: ir.Value | None
) -> list[ir.Node]:
    """Nodes from token ids [batch, positions] to floats [batch, positions, K].

    Args:
        graph: where the constants go.
        matrix: codes [V, K] of 4 or 8 bits, without zero points.
        scales: float32 [V, blocks].
        ids: the tokens.
    """
    rows, columns = matrix.shape
    name = f"{matrix.name}.rows"
    chain = Chain(name)
    stored = (rows, columns * matrix.bits // 8)
    codes = chain.then("Gather", external(graph, name, matrix.codes, _BYTE, stored), ids)
    if matrix.bits == 4:
        codes = _nibbles(graph, chain, codes)
    blocked = integers(graph, f"{name}.blocked", [0, 0, matrix.blocks, matrix.block_size])
    wide = chain.then("Cast", chain.then("Reshape", codes, blocked), to=_FLOAT.value)
    middle = constant(graph, f"{name}.middle", [float(1 << (matrix.bits - 1))], _FLOAT)
    steps = chain.then("Sub", wide, middle)
    own = chain.then("Gather", scales, ids)
    each = chain.then("Unsqueeze", own, integers(graph, f"{name}.each", [-1]))
    joined = integers(graph, f"{name}.joined", [0, 0, columns])
    chain.then("Reshape", chain.then("Mul", steps, each), joined)
    return chain.nodes


def _nibbles(graph: ir.Graph, chain: Chain, codes: ir.Value) -> ir.Value:
    """The two codes of each byte on an axis of their own, the low one first."""
    apart = chain.then("Unsqueeze", codes, integers(graph, f"{chain.name}.each", [-1]))
    mask = constant(graph, f"{chain.name}.mask", [0x0F], _BYTE)
    width = constant(graph, f"{chain.name}.width", [4], _BYTE)
    low = chain.then("BitwiseAnd", apart, mask)
    high = chain.then("BitShift", apart, width, direction="RIGHT")
    return chain.then("Concat", low, high, axis=-1)
