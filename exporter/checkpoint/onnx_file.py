"""An ONNX file's graph, and where its weights lie, without reading them.

An ONNX file is one protobuf message (https://protobuf.dev/programming-guides/encoding/)
that may hold gigabytes.  It is walked here down to its initializers, whose bytes are left
where they are: inside the file, or in those that it names beside itself.  Everything it
says of them is checked against the files' lengths before it is believed.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message

from exporter.checkpoint.errors import ShardMissing
from exporter.checkpoint.inside import file_names
from exporter.checkpoint.safetensors_file import StoredTensor
from manifests.errors import BadInput

#: What may be left of a file when its weights are taken out.  Graphs take a few MB.
MAX_GRAPH_BYTES = 64 << 20
#: protobuf's own limit on a message.
_MAX_MESSAGE_BYTES = (1 << 31) - 1
#: Graphs have some ten thousand nodes; each field that is looked at takes memory.
_MAX_FIELDS = 1 << 20
_MAX_RANK = 8
_MAX_DIM = 1 << 48
#: Floats in a field of numbers instead of bytes: a few are constants of the graph.
_MAX_TYPED = 1 << 10
#: Floats that float32 holds exactly.
_FLOATS: MappingProxyType[int, np.dtype[Any]] = MappingProxyType(
    {
        onnx.TensorProto.FLOAT: np.dtype("<f4"),
        onnx.TensorProto.FLOAT16: np.dtype("<f2"),
        onnx.TensorProto.BFLOAT16: np.dtype(ml_dtypes.bfloat16),
    }
)
#: Field numbers of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
_GRAPH, _INITIALIZER, _SPARSE, _RAW_DATA = 7, 5, 15, 9
#: The wire type of strings, bytes and messages.
_BYTES = 2
_TYPED = ("float_data", "int32_data", "string_data", "int64_data", "double_data", "uint64_data")


class OnnxCorrupt(BadInput):
    """An ONNX file contradicts itself, or the files that it names."""

    code = "onnx-corrupt"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}", "the file is damaged or incomplete: export it again")


class OnnxUnsupported(BadInput):
    """An ONNX file is well formed, but not one that a bundle can be made of."""

    code = "onnx-unsupported"

    def __init__(self, path: Path, reason: str, next_step: str) -> None:
        super().__init__(f"{path}: {reason}", next_step)


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX model whose weights have not been read.

    Attributes:
        proto: the model; the tensors of ``weights`` are inputs of its graph.
        weights: float initializers of more than one value, by name.
        files: the file, and those that its weights lie in.
    """

    proto: onnx.ModelProto
    weights: dict[str, StoredTensor]
    files: tuple[Path, ...]


class _Field(NamedTuple):
    """A field of a message: its bytes with and without its tag."""

    number: int
    wire: int
    start: int
    value: int
    stop: int


def open_onnx(path: Path) -> OnnxFile:
    """Read the graph in ``path`` and find its weights.

    Raises:
        OnnxCorrupt: no ONNX model, one that breaks ONNX's rules, or one whose weights are
            not where it says.
        OnnxUnsupported: weights that are kept in a way that cannot be left in the file.
    """
    size = path.stat().st_size
    if not 0 < size <= _MAX_MESSAGE_BYTES:
        raise OnnxCorrupt(path, f"{size} bytes are no protobuf message")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as octets:
        return _Opening(path, octets).open()


class _Opening:
    """One pass over a file."""

    def __init__(self, path: Path, octets: mmap.mmap) -> None:
        self._path = path
        self._octets = octets
        self._kept = 0
        self._seen = 0
        self._weights: dict[str, StoredTensor] = {}
        self._files: dict[Path, None] = {path: None}

    def open(self) -> OnnxFile:
        """Take the message apart, and put together what is not weights."""
        fields = list(self._fields(0, len(self._octets)))
        graphs = [field for field in fields if field.number == _GRAPH]
        if len(graphs) != 1 or graphs[0].wire != _BYTES:
            raise OnnxCorrupt(self._path, f"{len(graphs)} graphs where an ONNX model has one")
        proto = onnx.ModelProto()
        self._parse(proto, [field for field in fields if field.number != _GRAPH])
        inside = list(self._fields(graphs[0].value, graphs[0].stop))
        if any(field.number == _SPARSE for field in inside):
            raise OnnxUnsupported(
                self._path, "holds sparse initializers", "export it with dense ones"
            )
        tensors = [field for field in inside if field.number == _INITIALIZER]
        graph = proto.graph
        self._parse(graph, [field for field in inside if field.number != _INITIALIZER])
        known = {value.name for value in graph.input}
        names: set[str] = set()
        for field in tensors:
            tensor = self._initializer(field)
            if tensor.name in names:
                raise OnnxCorrupt(self._path, f"initializer {tensor.name} is there twice")
            names.add(tensor.name)
            if tensor.name not in self._weights:
                graph.initializer.append(tensor)
            elif tensor.name not in known:
                value = onnx.helper.make_tensor_value_info(
                    tensor.name, tensor.data_type, tensor.dims
                )
                graph.input.append(value)
        try:
            onnx.checker.check_model(proto)
        except (onnx.checker.ValidationError, UnicodeDecodeError) as error:
            # The checker's own message may quote bytes that are no text.
            reason = str(error).strip().splitlines()[0]
            raise OnnxCorrupt(self._path, f"breaks ONNX's rules: {reason}") from None
        return OnnxFile(proto, self._weights, tuple(self._files))

    def _fields(self, start: int, stop: int) -> Iterator[_Field]:
        at = start
        while at < stop:
            tag, value = self._varint(at, stop)
            wire = tag & 7
            match wire:
                case 0:
                    _, end = self._varint(value, stop)
                case 1:
                    end = value + 8
                case 2:  # _BYTES
                    length, value = self._varint(value, stop)
                    end = value + length
                case 5:
                    end = value + 4
                case _:
                    raise OnnxCorrupt(self._path, f"is no protobuf message at byte {at}")
            self._seen += 1
            if self._seen > _MAX_FIELDS:
                raise OnnxCorrupt(self._path, f"has more than {_MAX_FIELDS} parts")
            if end > stop:
                raise OnnxCorrupt(self._path, f"ends inside the field at byte {at}")
            yield _Field(tag >> 3, wire, at, value, end)
            at = end

    def _varint(self, at: int, stop: int) -> tuple[int, int]:
        """The number at ``at``, and where it ends."""
        value = 0
        for shift in range(0, 70, 7):
            if at >= stop:
                break
            octet = self._octets[at]
            at += 1
            value |= (octet & 127) << shift
            if octet < 128:
                return value, at
        raise OnnxCorrupt(self._path, f"ends inside a number, or has none at byte {at}")

    def _parse(
        self, message: onnx.ModelProto | onnx.GraphProto | onnx.TensorProto, fields: list[_Field]
    ) -> None:
        """Fill ``message`` with ``fields`` of the file."""
        self._keep(sum(field.stop - field.start for field in fields))
        try:
            message.MergeFromString(b"".join(self._octets[f.start : f.stop] for f in fields))
        except DecodeError as error:
            raise OnnxCorrupt(self._path, f"is no ONNX model: {error}") from None
        if not all(_texts(message)):
            raise OnnxCorrupt(self._path, "has a text that is not UTF-8")

    def _keep(self, length: int) -> None:
        self._kept += length
        if self._kept > MAX_GRAPH_BYTES:
            raise OnnxUnsupported(
                self._path,
                f"holds more than {MAX_GRAPH_BYTES >> 20} MiB that are no float weights",
                "export it with its constants folded into float initializers",
            )

    def _initializer(self, field: _Field) -> onnx.TensorProto:
        """The tensor in ``field``: among ``weights``, or else with its values."""
        if field.wire != _BYTES:
            raise OnnxCorrupt(self._path, f"has no initializer at byte {field.start}")
        inside = list(self._fields(field.value, field.stop))
        tensor = onnx.TensorProto()
        self._parse(tensor, [part for part in inside if part.number != _RAW_DATA])
        raw = [part for part in inside if part.number == _RAW_DATA]
        name, shape = tensor.name, tuple(tensor.dims)
        if len(shape) > _MAX_RANK or not all(0 <= dim < _MAX_DIM for dim in shape):
            raise OnnxCorrupt(self._path, f"initializer {name} has an impossible shape")
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if len(raw) + external + any(getattr(tensor, kind) for kind in _TYPED) > 1:
            raise OnnxCorrupt(self._path, f"initializer {name} keeps its values in two places")
        dtype = _FLOATS.get(tensor.data_type)
        if dtype is None or prod(shape) <= 1:
            self._constant(tensor, raw)
            return tensor
        if external:
            path, start, stop = self._outside(tensor)
        elif raw and raw[0].wire == _BYTES:
            path, start, stop = self._path, raw[0].value, raw[0].stop
        elif prod(shape) <= _MAX_TYPED:
            return tensor
        else:
            raise OnnxUnsupported(
                self._path,
                f"initializer {name} keeps its values neither as bytes nor in a file",
                "save it with raw_data or external data",
            )
        stored = StoredTensor(path, name, dtype, shape, start)
        if stop - start != stored.nbytes:
            reason = f"initializer {name} has {stop - start} bytes, needs {stored.nbytes}"
            raise OnnxCorrupt(self._path, reason)
        self._weights[name] = stored
        self._files[path] = None
        return tensor

    def _constant(self, tensor: onnx.TensorProto, raw: list[_Field]) -> None:
        """Give ``tensor`` its values: the graph computes with them."""
        self._parse(tensor, raw)
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            path, start, stop = self._outside(tensor)
            self._keep(stop - start)
            with path.open("rb") as file:
                file.seek(start)
                tensor.raw_data = file.read(stop - start)
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            self._files[path] = None

    def _outside(self, tensor: onnx.TensorProto) -> tuple[Path, int, int]:
        """The file that ``tensor`` lies in, and its first byte and the one after its last."""
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location", "")
        path = self._path.parent / location
        if location in {"", ".", ".."} or {"/", "\\", "\0"} & set(location):
            reason = f"names a file outside its folder for {tensor.name}: {location!r:.80}"
            raise OnnxCorrupt(self._path, reason)
        if location not in file_names(self._path.parent):
            raise ShardMissing(path, self._path)
        size = path.stat().st_size
        try:
            start = int(entries.get("offset", "0"))
            length = int(entries.get("length", str(size - start)))
        except ValueError:
            raise OnnxCorrupt(self._path, f"{tensor.name} has no readable offset") from None
        if min(start, length) < 0 or start + length > size:
            reason = f"{tensor.name} lies at bytes {start} to {start + length} of {size}"
            raise OnnxCorrupt(path, reason)
        return path, start, start + length


def _texts(message: Message) -> Iterator[bool]:
    """Whether each text in ``message`` is one: what is no UTF-8, protobuf gives as bytes."""
    for field, value in message.ListFields():
        values = [value] if isinstance(value, str | bytes | Message) else value
        if field.type == FieldDescriptor.TYPE_STRING:
            yield all(isinstance(each, str) for each in values)
        elif field.type == FieldDescriptor.TYPE_MESSAGE:
            for each in values:
                yield from _texts(each)
