"""Decoders that another exporter wrote as ONNX, made into skeletons like our own.

What comes out has the inputs and outputs of docs/architecture.md and its linears as
``Transpose -> MatMul`` over an initializer [N, K] without a value, which is what
:mod:`exporter.lower` takes.  Everything between stays as it was written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx.version_converter
import onnx_ir as ir
from onnx_ir.passes import common

from exporter.checkpoint.onnx_file import OnnxCorrupt, OnnxFile
from exporter.graph.sites import IDS, Site, find_sites, insert_first, refused
from exporter.graph.skeleton import weight_shapes
from exporter.lower.interface import LOGITS

MASK, POSITIONS = "attention_mask", "position_ids"
_PAST, _PRESENT = "past_key_values.", "present."
_MICROSOFT = "com.microsoft"
#: Of that domain, the operators that our own graphs have in the browser too.
_CONTRIB = frozenset({"GroupQueryAttention", "RotaryEmbedding", "SkipSimplifiedLayerNormalization"})
_QUANTISED = ("Quantize", "Integer", "MatMulNBits", "QLinear", "Bnb4", "QAttention", "QGemm")
#: The first with DequantizeLinear in blocks.
_OPSET = 21
_DTYPES = {ir.DataType.FLOAT: "float32", ir.DataType.FLOAT16: "float16"}


@dataclass(frozen=True)
class ForeignDecoder:
    """A skeleton, and which of its initializers are matrices.

    Attributes:
        path: the file that it was read from.
        dtype: ``float32`` or ``float16``, of the activations.
        sites: by initializer; every other initializer without a value goes as it is.
    """

    path: Path
    model: ir.Model
    dtype: str
    sites: dict[str, Site]

    @property
    def weights(self) -> dict[str, tuple[int, ...]]:
        """Shapes, as the file holds them, of the initializers that wait for a value."""
        return {
            name: shape[::-1] if self.transposes(name) else shape
            for name, shape in weight_shapes(self.model).items()
        }

    def transposes(self, name: str) -> bool:
        """Whether the file holds the initializer ``name`` as [K, N]."""
        return name in self.sites and self.sites[name].transposed


def read_decoder(path: Path, file: OnnxFile) -> ForeignDecoder:
    """Make a skeleton of the graph in ``file``, which was read from ``path``.

    Raises:
        OnnxCorrupt: its parts do not fit together.
        OnnxUnsupported: it is no float decoder with a KV cache; names what stands against it.
    """
    reader = _Reader(path, file)
    reader.check_operators()
    dtype = reader.name_interface()
    reader.derive_positions()
    sites = find_sites(path, reader.model.graph, file.weights)
    common.RemoveUnusedNodesPass()(reader.model)
    common.ClearMetadataAndDocStringPass()(reader.model)
    kept = reader.model.graph.initializers
    return ForeignDecoder(
        path, reader.model, dtype, {name: site for name, site in sites.items() if name in kept}
    )


class _Reader:
    def __init__(self, path: Path, file: OnnxFile) -> None:
        self._path = path
        self.model = _load(path, file.proto)
        # From the file: converting to a newer opset leaves them out.
        self._functions = [(each.domain, each.name) for each in file.proto.functions]
        self._graph = self.model.graph
        inputs = [value for value in self._graph.inputs if value.name not in file.weights]
        weights = [value for value in self._graph.inputs if value.name in file.weights]
        # Files of an IR below 4 name every initializer among the inputs.
        inputs = [value for value in inputs if value.name not in self._graph.initializers]
        self._graph.inputs.clear()
        self._graph.inputs.extend(inputs)
        for value in weights:
            stored = file.weights[str(value.name)]
            value.shape = ir.Shape(stored.shape)
            self._graph.initializers[str(value.name)] = value

    def check_operators(self) -> None:
        """Refuse what another part of the world has to run, or has already quantised."""
        for domain, name in self._functions:
            # A runtime without such an operator runs its body.
            if domain != _MICROSOFT or name not in _CONTRIB:
                raise refused(self._path, f"defines the function {domain}.{name}")
        for node in self._graph:
            label = f"{node.op_type} (node {node.name or 'without a name'})"
            if any(kind in node.op_type for kind in _QUANTISED):
                reason = f"is quantised already: {label}"
                raise refused(self._path, reason, "give the float graph: the exporter quantises it")
            contributed = node.domain == _MICROSOFT and node.op_type in _CONTRIB
            if node.domain not in ("", "ai.onnx") and not contributed:
                raise refused(self._path, f"has the operator {node.domain}.{label}")
            if any(
                attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()
            ):
                raise refused(self._path, f"has a graph inside {label}")

    def name_interface(self) -> str:
        """Give inputs and outputs their dimensions' names; return the activations' dtype."""
        inputs = {str(value.name): value for value in self._graph.inputs}
        outputs = {str(value.name): value for value in self._graph.outputs}
        pasts = [name for name in inputs if name.startswith(_PAST)]
        if not pasts:
            raise refused(self._path, "has no KV cache")
        self._expect("input", inputs, [*pasts, IDS, MASK], optional=POSITIONS)
        presents = [_PRESENT + name.removeprefix(_PAST) for name in pasts]
        self._expect("output", outputs, [*presents, LOGITS])
        if [name for name in outputs if name != LOGITS] != presents:
            raise refused(self._path, "puts its KV cache out in another order")
        batch, new = "batch_size", "sequence_length"
        past, total = f"past_{new}", f"total_{new}"
        for name in (IDS, MASK, POSITIONS):
            if name in inputs:
                self._shape(inputs[name], [batch, total if name == MASK else new])
                if inputs[name].dtype != ir.DataType.INT64:
                    raise refused(self._path, f"takes {name} in another type than int64")
        for name, values, length in (
            *((name, inputs, past) for name in pasts),
            *((name, outputs, total) for name in presents),
        ):
            self._shape(values[name], [batch, None, length, None])
        self._shape(outputs[LOGITS], [batch, new, None])
        (dtype, *others) = {(inputs | outputs)[name].dtype for name in (*pasts, *presents, LOGITS)}
        if others or dtype not in _DTYPES:
            raise refused(self._path, "mixes float types, or has others than 16 and 32")
        return _DTYPES[dtype]

    def derive_positions(self) -> None:
        """Compute ``position_ids`` from the mask's length: the runtime sends none."""
        inputs = {value.name: value for value in self._graph.inputs}
        positions = inputs.get(POSITIONS)
        if positions is None:
            return
        sizes = []
        one = ir.node("Constant", [], {"value_int": 1})
        nodes = [one]
        for name in (MASK, IDS):
            shape = ir.node("Shape", [inputs[name]])
            length = ir.node("Gather", [shape.outputs[0], one.outputs[0]])
            nodes += [shape, length]
            sizes.append((shape.outputs[0], length.outputs[0]))
        (_, total), (ids_shape, new) = sizes
        start = ir.node("Sub", [total, new])
        counted = ir.node("Range", [start.outputs[0], total, one.outputs[0]])
        spread = ir.node("Expand", [counted.outputs[0], ids_shape])
        insert_first(self._graph, [*nodes, start, counted, spread], POSITIONS)
        positions.replace_all_uses_with(spread.outputs[0])
        self._graph.inputs.remove(positions)

    def _expect(
        self, kind: str, values: Mapping[str, ir.Value], wanted: list[str], optional: str = ""
    ) -> None:
        for name in wanted:
            if name not in values:
                raise refused(self._path, f"has no {kind} {name}")
        for name in values:
            if name not in wanted and name != optional:
                raise refused(self._path, f"has the {kind} {name}")

    def _shape(self, value: ir.Value, names: list[str | None]) -> None:
        """Rename the dimensions of ``value``; a name of None is a number, and stays."""
        dims = list(value.shape or ())
        if len(dims) != len(names):
            raise refused(self._path, f"has {len(dims)} axes in {value.name}")
        pairs = list(zip(dims, names, strict=True))
        for index, (dim, name) in enumerate(pairs):
            # A batch of one is what the runtime sends anyway.
            if isinstance(dim, int) != (name is None) and index:
                reason = f"has {dim} for axis {index} of {value.name}"
                raise refused(self._path, reason)
        value.shape = ir.Shape(
            [dim if name is None else ir.SymbolicDim(name) for dim, name in pairs]
        )


def _load(path: Path, proto: onnx.ModelProto) -> ir.Model:
    """The model, in an opset that has what our passes put in."""
    versions = {entry.domain: entry.version for entry in proto.opset_import}
    try:
        if versions.get("", 0) < _OPSET:
            proto = onnx.version_converter.convert_version(proto, _OPSET)
        return ir.from_proto(proto)
    except Exception as error:
        # Both raise whatever a strange value led them to.
        raise OnnxCorrupt(path, f"the graph cannot be read: {error!s:.200}") from error
