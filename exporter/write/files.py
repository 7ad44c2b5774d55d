"""The bundle's small files: copied or written, and described as they are."""

from __future__ import annotations

from pathlib import Path

from exporter.write.shards import ChunkDigest
from manifests.bundle import File

MEDIA_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".jinja": "text/plain",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".onnx": "application/octet-stream",
    ".ts": "text/plain",
    ".txt": "text/plain",
    ".wasm": "application/wasm",
}
_READ = 1 << 20


def describe(folder: Path, name: str) -> File:
    """The descriptor of the file ``name`` in ``folder``."""
    digest = ChunkDigest()
    with (folder / name).open("rb") as file:
        while block := file.read(_READ):
            digest.update(block)
    return digest.describe(name, MEDIA_TYPES[Path(name).suffix])


def add(folder: Path, name: str, data: bytes) -> File:
    """Write ``data`` as the file ``name`` of ``folder`` and describe it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return describe(folder, name)
