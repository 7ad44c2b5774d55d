"""Where a graph's weights are: initializers over ranges of shared shard files."""

from __future__ import annotations

from math import prod
from pathlib import PurePosixPath

import onnx_ir as ir

from manifests.bundle import Range

MICROSOFT = "com.microsoft"
_ONNX_DTYPES = {"float32": ir.DataType.FLOAT, "float16": ir.DataType.FLOAT16}


def external(
    graph: ir.Graph, name: str, place: Range, dtype: ir.DataType, shape: tuple[int, ...]
) -> ir.Value:
    """An initializer called ``name`` over the bytes at ``place``; made once per name.

    A shape that needs fewer bytes than ``place`` has takes the first of them, which is
    how many tensors share one range of equal zero points.
    """
    if name in graph.initializers:
        return graph.initializers[name]
    length = -(-prod(shape) * dtype.bitwidth // 8)
    assert length <= place.length, f"{name}: {length} bytes in a range of {place.length}"
    tensor = ir.ExternalTensor(
        location=PurePosixPath(place.file).name,
        offset=place.offset,
        length=length,
        dtype=dtype,
        shape=ir.Shape(shape),
        name=name,
    )
    value = ir.Value(
        name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape), const_value=tensor
    )
    graph.register_initializer(value)
    return value


def floats(
    graph: ir.Graph, name: str, place: Range, stored: str, wanted: str, shape: tuple[int, ...]
) -> ir.Value:
    """Float values at ``place``, cast in the graph when they are stored in another width.

    onnxruntime folds the cast when it loads.
    """
    source = external(graph, name, place, _ONNX_DTYPES[stored], shape)
    if stored == wanted:
        return source
    cast_name = f"{name}.{wanted}"
    for usage in source.uses():
        if usage.node.outputs[0].name == cast_name:
            return usage.node.outputs[0]
    cast = ir.node("Cast", [source], {"to": _ONNX_DTYPES[wanted].value})
    cast.outputs[0].name = cast_name
    cast.outputs[0].shape = ir.Shape(shape)
    cast.outputs[0].type = ir.TensorType(_ONNX_DTYPES[wanted])
    graph.insert_before(graph[0], cast)
    return cast.outputs[0]


def integers(graph: ir.Graph, name: str, values: list[int]) -> ir.Value:
    """A small int64 constant, kept in the graph's own file; made once per name."""
    return constant(graph, name, values, ir.DataType.INT64)


def constant(
    graph: ir.Graph, name: str, values: float | list[int] | list[float], dtype: ir.DataType
) -> ir.Value:
    """A small constant, a scalar or a vector, in the graph's own file; made once per name."""
    if name in graph.initializers:
        return graph.initializers[name]
    value = ir.Value(name=name, const_value=ir.tensor(values, dtype, name=name))
    shape = (len(values),) if isinstance(values, list) else ()
    value.type, value.shape = ir.TensorType(dtype), ir.Shape(shape)
    graph.register_initializer(value)
    return value
