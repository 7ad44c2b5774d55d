"""Products over a DequantizeLinear of codes, which every ONNX Runtime can run.

onnxruntime folds the floats when it loads the graph; our page multiplies by the codes
(decision 0034).  Either holds a weight twice while it brings it into its own form, so a head,
which is many times a linear's size, is cut into pieces.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_ir as ir

from exporter.lower.interface import LOGITS
from exporter.lower.weights import MICROSOFT, external, floats
from exporter.write.store import Matrix, StoredWeights
from manifests.bundle import Range

_CODES = {4: ir.DataType.UINT4, 8: ir.DataType.UINT8}
_FLOAT_BYTES = 4
#: Rows of a piece are a multiple of what products work on together, and of whole bytes of codes.
_ROWS_TOGETHER = 16
#: Floats of a piece.
PIECE_BYTES = 8 << 20


def dequantized_product(
    graph: ir.Graph, matrix: Matrix, store: StoredWeights, source: ir.Value | None
) -> list[ir.Node]:
    """Nodes for ``source`` [..., K] times the transpose of ``matrix`` [N, K], in float32.

    FusedMatMul takes the weight as [N, K]; a Transpose would be folded as well, into a second copy.
    """
    rows, _ = matrix.shape
    step = rows if matrix.role == "linear" else _piece_rows(matrix)
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


def _piece_rows(matrix: Matrix) -> int:
    """Rows of ``matrix`` that take ``PIECE_BYTES`` as floats, about."""
    fitting = PIECE_BYTES // (_FLOAT_BYTES * matrix.shape[1])
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
