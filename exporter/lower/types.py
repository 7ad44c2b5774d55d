"""Tells the type of every value, for whoever cuts the graph: a part's inputs need one."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from exporter.lower.errors import GraphUnexpected
from exporter.lower.weights import MICROSOFT


def tell_types(model: ir.Model) -> None:
    """Infer all types; com.microsoft's operators, which ONNX does not know, give float32 on a CPU.

    Raises:
        GraphUnexpected: the type of a value is not to be found out.
    """
    untold = [(value, node) for node in model.graph for value in node.outputs if not value.type]
    for value, node in untold:
        if node.domain == MICROSOFT:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    ShapeInferencePass()(model)
    for value, node in untold:
        if value.type is None and value.uses():
            raise GraphUnexpected(f"{node.op_type} gives {value.name}, whose type is unknown")
        # Which would be written now, and has never been held to what the node gives.
        value.shape = None
