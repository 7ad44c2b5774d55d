"""Products over float weights that onnxruntime makes from codes while it loads.

Its session first folds every DequantizeLinear, then packs the weights for its products one
after the other, freeing what it packed.  What is freed is a little too small for a packed
weight of the same size, so the largest weights always go to the end of the heap, which never
shrinks.  Hence a head is cut into pieces that fit where the linears were, and each weight is
folded next to its product, in the order of packing.  docs/decisions/0020 has the figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx_ir as ir

from exporter.lower.interface import LOGITS
from exporter.lower.weights import MICROSOFT, external, floats
from exporter.write.store import Matrix, StoredWeights
from manifests.bundle import Range

_CODES = {4: ir.DataType.UINT4, 8: ir.DataType.UINT8}
_FLOAT_BYTES = 4
#: Rows of a piece: a multiple of what onnxruntime packs together, and of whole bytes of codes.
_ROWS_TOGETHER = 16
#: What alignment and bookkeeping take of a freed weight, generously.
_LOST_BYTES = 4096
#: A head of many small pieces would cost more time than the heap is worth.
SMALLEST_PIECE_BYTES = 1 << 20


def folded_product(
    graph: ir.Graph, matrix: Matrix, store: StoredWeights, source: ir.Value | None
) -> list[ir.Node]:
    """Nodes for ``source`` [..., K] times the transpose of ``matrix`` [N, K], in float32.

    FusedMatMul takes the weight as [N, K]; a Transpose would be folded into a second copy.
    """
    rows, _ = matrix.shape
    step = rows if matrix.role == "linear" else _piece_rows(matrix, store)
    nodes: list[ir.Node] = []
    parts: list[ir.Value] = []
    for start in range(0, rows, step):
        piece = _Piece(matrix, start, min(start + step, rows))
        weight, made = _dequantised(graph, piece, store)
        product = ir.node("FusedMatMul", [source, weight], {"transB": 1}, domain=MICROSOFT)
        nodes += [*made, product]
        parts.append(product.outputs[0])
    if len(parts) == 1:
        return nodes
    for index, part in enumerate(parts):
        part.name = f"{LOGITS}.{index}"
    return [*nodes, ir.node("Concat", parts, {"axis": -1})]


@dataclass(frozen=True)
class _Piece:
    """Rows ``start`` to ``stop`` of a matrix."""

    matrix: Matrix
    start: int
    stop: int

    @property
    def name(self) -> str:
        whole = self.stop - self.start == self.matrix.shape[0]
        return self.matrix.name if whole else f"{self.matrix.name}.{self.start}"

    def of(self, place: Range, row_bits: int) -> Range:
        """Its part of what is stored at ``place``, row after row."""
        offset = place.offset + self.start * row_bits // 8
        length = (self.stop - self.start) * row_bits // 8
        return Range(file=place.file, offset=offset, length=length)


def _piece_rows(matrix: Matrix, store: StoredWeights) -> int:
    """Rows of ``matrix`` that take a little less than the largest linear, as floats."""
    rows, columns = matrix.shape
    linears = [prod(other.shape) for other in store.matrices if other.role == "linear"]
    largest = _FLOAT_BYTES * max(linears, default=0)
    if _FLOAT_BYTES * rows * columns <= largest:
        return rows
    room = max(SMALLEST_PIECE_BYTES, largest - _LOST_BYTES)
    fitting = room // (_FLOAT_BYTES * columns)
    return max(_ROWS_TOGETHER, fitting - fitting % _ROWS_TOGETHER)


def _dequantised(
    graph: ir.Graph, piece: _Piece, store: StoredWeights
) -> tuple[ir.Value, list[ir.Node]]:
    """The float weight, and the nodes that make it unless another product's did."""
    matrix, name = piece.matrix, piece.name
    codes_name = f"{name}.codes"
    if codes_name in graph.initializers:
        [usage] = graph.initializers[codes_name].uses()
        return usage.node.outputs[0], []
    shape = (piece.stop - piece.start, matrix.shape[1])
    blocks = (shape[0], matrix.blocks)
    codes = piece.of(matrix.codes, matrix.shape[1] * matrix.bits)
    scale_bits = {"float16": 16, "float32": 32}[matrix.scale_dtype]
    scales = piece.of(matrix.scales, matrix.blocks * scale_bits)
    if matrix.zero_points is None:
        zero_points = store.default_zero_points[matrix.bits]
    else:
        zero_points = piece.of(matrix.zero_points, matrix.blocks * matrix.bits)
    dtype = _CODES[matrix.bits]
    inputs = [
        external(graph, codes_name, codes, dtype, shape),
        floats(graph, f"{name}.scales", scales, matrix.scale_dtype, "float32", blocks),
        external(graph, f"{name}.zero_points", zero_points, dtype, blocks),
    ]
    node = ir.node("DequantizeLinear", inputs, {"axis": 1, "block_size": matrix.block_size})
    value = node.outputs[0]
    value.name, value.shape = f"{name}.float", ir.Shape(shape)
    value.type = ir.TensorType(ir.DataType.FLOAT)
    return value, [node]
