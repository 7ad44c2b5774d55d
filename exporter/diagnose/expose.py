"""A copy of a bundle whose logits are what is inside its graph.

The runtime returns float32 [tokens, width] for whatever the graph calls ``logits``, so
nothing but the graph has to change: the page, the sessions and their settings are those
that ship.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import onnx_ir as ir

from exporter.diagnose.points import find_points
from exporter.lower.interface import LOGITS, find_logits
from exporter.lower.resident import ROWS
from exporter.lower.weights import integers
from exporter.write import files
from exporter.write.verify import verify_file
from manifests.bundle import MANIFEST_NAME, Manifest, TargetEntry
from manifests.diagnosis import Point

#: A shader binds few buffers: more values are concatenated in several steps.
_AT_ONCE = 4
_FLOAT = ir.TensorType(ir.DataType.FLOAT)


def graph_of(entry: TargetEntry) -> str:
    """The graph that the page runs by default."""
    return entry.resident_graph or entry.graph


def load_graph(bundle: Path, manifest: Manifest, target: str) -> ir.Model:
    """The graph that the page runs by default.

    Raises:
        FileMissing, FileChanged: its file is not the one that was sealed.
    """
    path = graph_of(manifest.targets[target])
    verify_file(bundle, manifest, path)
    return ir.load(bundle / path)


def expose_bundle(
    bundle: Path, manifest: Manifest, target: str, points: Sequence[Point], width: int, out: Path
) -> None:
    """Write the copy to ``out``: one target, ``points`` and then the logits in each row.

    Files that stay as they are become links where the file system allows it.

    Args:
        bundle: folder of the bundle.
        manifest: its manifest.
        target: the target to copy.
        points: what to show besides the logits.
        width: of a whole row.
        out: a folder that does not exist yet.

    Raises:
        FileMissing, FileChanged: the graph is not the one that was sealed.
    """
    entry = manifest.targets[target]
    path = graph_of(entry)
    model = load_graph(bundle, manifest, target)
    found = find_points(model.graph, manifest.weights[entry.weights].tensors)
    expose(model, [found[point] for point in points])
    for file in manifest.files:
        (out / file.path).parent.mkdir(parents=True, exist_ok=True)
        if file.path != path:
            _copy(bundle / file.path, out / file.path)
    ir.save(model, out / path)
    kept = tuple(file for file in manifest.files if file.path != path)
    changed = manifest.model_copy(
        update={
            "files": tuple(sorted((*kept, files.describe(out, path)), key=lambda file: file.path)),
            "targets": {target: entry},
            # It is about logits that are logits.
            "self_check": None,
            "model": manifest.model.model_copy(update={"vocab_size": width}),
        }
    )
    (out / MANIFEST_NAME).write_bytes(changed.sealed_bytes())


def _copy(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def expose(model: ir.Model, values: Sequence[ir.Value]) -> None:
    """Put ``values`` before the logits in each row of the graph's first output."""
    graph = model.graph
    logits = find_logits(graph)
    rows = next((value for value in graph.inputs if value.name == ROWS), None)
    parts = [_rows(graph, value, rows) for value in values]
    parts.append(_node(graph, "Cast", [logits], to=ir.DataType.FLOAT.value))
    while len(parts) > 1:
        groups = [parts[at : at + _AT_ONCE] for at in range(0, len(parts), _AT_ONCE)]
        parts = [
            group[0] if len(group) == 1 else _node(graph, "Concat", group, axis=-1)
            for group in groups
        ]
    (whole,) = parts
    logits.name, whole.name = f"{LOGITS}.model", LOGITS
    whole.type = _FLOAT
    assert logits.shape is not None
    whole.shape = ir.Shape([*logits.shape[:2], ir.SymbolicDim("exposed")])
    graph.outputs[list(graph.outputs).index(logits)] = whole


def _rows(graph: ir.Graph, value: ir.Value, rows: ir.Value | None) -> ir.Value:
    """``value`` as float32 [batch, tokens, width]; of the kept rows, where there is a choice."""
    shape = integers(graph, "exposed.shape", [0, 0, -1])
    flat = _node(graph, "Reshape", [value, shape])
    wide = _node(graph, "Cast", [flat], to=ir.DataType.FLOAT.value)
    return wide if rows is None else _node(graph, "Gather", [wide, rows], axis=1)


def _node(graph: ir.Graph, kind: str, inputs: list[ir.Value], **attributes: int) -> ir.Value:
    node = ir.node(kind, inputs, attributes)
    [value] = node.outputs
    value.name = f"exposed.{len(graph)}"
    # Types are told: the page cuts the CPU's graph (decision 0034).
    value.type = inputs[0].type if kind == "Reshape" else _FLOAT
    graph.append(node)
    return value
