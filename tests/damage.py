"""Bundles that were damaged and sealed again, so that every digest holds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir

from exporter.write.shards import ChunkDigest
from manifests.bundle import MANIFEST_NAME, Manifest, read_manifest


def scale_up(bundle: Path, out: Path, tensor: str, factor: float) -> Path:
    """A copy of ``bundle`` where every scale of ``tensor`` is ``factor`` times as large."""
    manifest = read_manifest(bundle)
    shutil.copytree(bundle, out)
    rows = [row for weights in manifest.weights.values() for row in weights.tensors]
    row = next(row for row in rows if row.name == tensor)
    assert row.scales is not None
    assert row.scale_dtype is not None
    shard = out / row.scales.file
    content = bytearray(shard.read_bytes())
    place = slice(row.scales.offset, row.scales.offset + row.scales.length)
    scales = np.frombuffer(content[place], row.scale_dtype)
    content[place] = (scales * factor).astype(row.scale_dtype).tobytes()
    shard.write_bytes(content)
    return _seal(out, manifest, row.scales.file)


def edit_graph(bundle: Path, out: Path, target: str, change: Callable[[ir.Graph], None]) -> Path:
    """A copy of ``bundle`` with ``target``'s graphs changed."""
    manifest = read_manifest(bundle)
    shutil.copytree(bundle, out)
    entry = manifest.targets[target]
    for path in filter(None, (entry.graph, entry.resident_graph)):
        model = ir.load(bundle / path)
        change(model.graph)
        ir.save(model, out / path)
        manifest = read_manifest(_seal(out, manifest, path))
    return out


def without_resident(bundle: Path, out: Path) -> Path:
    """A copy of ``bundle`` whose targets have the conventional graph only."""
    manifest = read_manifest(bundle)
    shutil.copytree(bundle, out)
    targets = {
        name: entry.model_copy(update={"resident_graph": None})
        for name, entry in manifest.targets.items()
    }
    changed = manifest.model_copy(update={"targets": targets})
    (out / MANIFEST_NAME).write_bytes(changed.sealed_bytes())
    return out


def _seal(bundle: Path, manifest: Manifest, path: str) -> Path:
    digest = ChunkDigest(manifest.chunk_size)
    digest.update((bundle / path).read_bytes())
    described = [
        digest.describe(path, file.media_type) if file.path == path else file
        for file in manifest.files
    ]
    changed = manifest.model_copy(update={"files": tuple(described)})
    (bundle / MANIFEST_NAME).write_bytes(changed.sealed_bytes())
    return bundle
