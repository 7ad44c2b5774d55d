"""Do the graphs read what the ledger is about?

A proven row says nothing of a graph whose initializer lies elsewhere.  Every initializer
outside of a graph's file is held against the row that its name begins with: its bytes are
that row's codes, scales, zero points or values, or whole rows of them where a head is cut
into pieces.  Every graph reads all codes of the ledger, and what is kept as floats is read
by one graph at least: a mask may leave some of them without a use.  Graphs are read by the
onnx package; what they compute is not proven here but by their logits.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import onnx
from google.protobuf.message import DecodeError

from exporter.prove.errors import LedgerUntrue
from manifests.bundle import Manifest, Part, Range, Tensor, WeightSet

_PARTS: dict[str, Part] = {
    "codes": "codes",
    "rows": "codes",
    "scales": "scales",
    "gather_scales": "scales",
    "zero_points": "zero_points",
}
#: An order of columns belongs to every row that has it.
_PERMUTATION = "permutation."
#: The first row of a piece.
_START = re.compile("[0-9]{1,9}")
_TYPES: dict[str, frozenset[int]] = {
    "uint4": frozenset({onnx.TensorProto.UINT8, onnx.TensorProto.UINT4}),
    "uint8": frozenset({onnx.TensorProto.UINT8}),
    "int32": frozenset({onnx.TensorProto.INT32}),
    "float16": frozenset({onnx.TensorProto.FLOAT16}),
    "float32": frozenset({onnx.TensorProto.FLOAT}),
}


def prove_graphs(bundle: Path, manifest: Manifest, weights: str) -> None:
    """Hold every graph over the weight set ``weights`` against its ledger, proven before.

    Raises:
        LedgerUntrue: names the tensor that a graph reads elsewhere, or not at all.
    """
    stored = manifest.weights[weights]
    floats: set[str] = set()
    graphs = [
        _Graph(bundle, path, stored)
        for target in manifest.targets.values()
        for path in (target.graph, target.resident_graph)
        if path is not None and target.weights == weights
    ]
    for graph in graphs:
        floats |= graph.prove()
    for row in stored.tensors:
        if graphs and row.values is not None and row.name not in floats:
            raise LedgerUntrue(bundle, row.name, f"no graph over {weights} reads it")


@dataclass(frozen=True)
class _Read:
    """The bytes that an initializer is: ``place`` by the path that the bundle has it under."""

    name: str
    type: int
    place: Range


class _Graph:
    """One graph file, and the ledger of its weights."""

    def __init__(self, bundle: Path, path: str, weights: WeightSet) -> None:
        self._bundle, self._path, self._shards = bundle, path, weights.shards
        self._rows = {row.name: row for row in weights.tensors}
        self._read: defaultdict[tuple[str, int], list[Range]] = defaultdict(list)

    def prove(self) -> set[str]:
        """Names of the rows of floats that it reads.

        Raises:
            LedgerUntrue: it does not read what the ledger says.
        """
        for read in self._initializers():
            named = self._named(read.name)
            if named is not None:
                self._hold(read, *named)
            elif read.name.startswith(_PERMUTATION):
                self._hold_permutation(read)
            else:
                raise self._untrue(read.name, "is read, and no row of the ledger is about it")
        floats = set()
        for row in self._rows.values():
            for part, place in row.parts():
                if part != "values" or (place.file, place.offset) in self._read:
                    self._hold_whole(row, part, place)
                    floats.add(row.name)
        return floats

    def _initializers(self) -> Iterator[_Read]:
        try:
            model = onnx.load(self._bundle / self._path, load_external_data=False)
        except DecodeError:
            raise LedgerUntrue(self._bundle, self._path, "is no ONNX graph") from None
        used = {
            name for graph in _graphs(model.graph) for node in graph.node for name in node.input
        }
        for tensor in (each for graph in _graphs(model.graph) for each in graph.initializer):
            if tensor.data_location != onnx.TensorProto.EXTERNAL or tensor.name not in used:
                continue
            entries = {entry.key: entry.value for entry in tensor.external_data}
            try:
                place = Range(
                    # Relative to the graph's folder; a path that is none is no file's.
                    file=str(PurePosixPath(self._path).parent / entries["location"]),
                    offset=int(entries.get("offset", 0)),
                    length=int(entries["length"]),
                )
            except (KeyError, ValueError):
                raise self._untrue(tensor.name, "lies nowhere") from None
            yield _Read(tensor.name, tensor.data_type, place)

    def _hold(self, read: _Read, row: Tensor, part: Part, start: int) -> None:
        if part == "zero_points" and row.zero_points is None:
            self._hold_default(read, row)
            return
        place: Range | None = getattr(row, part)
        if place is None:
            raise self._untrue(row.name, f"reads its {part}, which the ledger does not have")
        row_bytes = max(1, place.length // max(1, row.shape[0] if row.shape else 1))
        first = place.offset + start * row_bytes
        last = read.place.offset + read.place.length
        is_inside = read.place.offset == first and last <= place.offset + place.length
        if read.place.file != place.file or not is_inside or read.place.length % row_bytes:
            raise self._elsewhere(read, row, part)
        self._hold_type(read, row, part)
        self._read[place.file, place.offset].append(read.place)

    def _named(self, name: str) -> tuple[Tensor, Part, int] | None:
        """The row that an initializer is of, the part of it, and where in it that starts."""
        whole = self._rows.get(name)
        if whole is not None:
            return whole, "values", 0
        owner, _, part = name.rpartition(".")
        above, _, start = owner.rpartition(".")
        if part in _PARTS and owner in self._rows:
            return self._rows[owner], _PARTS[part], 0
        if part in _PARTS and above in self._rows and _START.fullmatch(start):
            return self._rows[above], _PARTS[part], int(start)
        return None

    def _hold_permutation(self, read: _Read) -> None:
        owners = [row for row in self._rows.values() if row.permutation == read.place]
        if not owners:
            raise self._untrue(read.name, "is an order of columns that no row of the ledger has")
        self._hold_type(read, owners[0], "permutation")
        self._read[read.place.file, read.place.offset].append(read.place)

    def _hold_type(self, read: _Read, row: Tensor, part: Part) -> None:
        told = {
            "scales": row.scale_dtype,
            "values": row.value_dtype,
            "permutation": "int32",
        }.get(part, f"uint{row.bits}")
        if read.type not in _TYPES.get(told or "", ()):
            kind = onnx.TensorProto.DataType.Name(read.type)
            raise self._untrue(row.name, f"reads its {part} as {kind}, the ledger says {told}")

    def _hold_default(self, read: _Read, row: Tensor) -> None:
        """Zero points that the ledger has none of: all are the middle, one range for many."""
        place, path = read.place, self._bundle / read.place.file
        if (
            place.file not in self._shards
            or not place.length
            or place.offset + place.length > path.stat().st_size
        ):
            raise self._elsewhere(read, row, "zero_points")
        octets = np.memmap(path, np.uint8, "r", place.offset, (place.length,))
        if np.any(octets != (0x88 if row.bits == 4 else 0x80)):
            raise self._untrue(row.name, "reads zero points that the ledger does not have")
        self._hold_type(read, row, "zero_points")

    def _hold_whole(self, row: Tensor, part: Part, place: Range) -> None:
        """Whether what is read of ``place`` begins, goes on and ends where it does."""
        reached = place.offset
        for read in sorted(self._read[place.file, place.offset], key=lambda each: each.offset):
            if read.offset > reached:
                break
            reached = max(reached, read.offset + read.length)
        if reached < place.offset + place.length:
            what = "all" if reached > place.offset else "any"
            raise self._untrue(row.name, f"does not read {what} of its {part}")

    def _elsewhere(self, read: _Read, row: Tensor, part: Part) -> LedgerUntrue:
        place = read.place
        where = f"bytes {place.offset}-{place.offset + place.length - 1} of {place.file}"
        return self._untrue(row.name, f"reads its {part} at {where}, not where the ledger says")

    def _untrue(self, tensor: str, reason: str) -> LedgerUntrue:
        return LedgerUntrue(self._bundle, tensor, f"{self._path}: {reason}")


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """``graph`` and those that its nodes hold."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)
