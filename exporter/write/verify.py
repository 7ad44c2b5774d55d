"""Is this bundle whole?  Every file's length and digests against the manifest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from exporter.write.errors import FileChanged, FileMissing, FileUnlisted
from exporter.write.shards import ChunkDigest
from manifests.bundle import MANIFEST_NAME, File, Manifest, read_manifest
from manifests.progress import Progress, silent

_READ = 1 << 20


def verify_bundle(bundle: Path, progress: Progress = silent) -> Manifest:
    """Read every byte of ``bundle`` and compare it with the manifest.

    Raises:
        NotFound, BadDocument, SealBroken: the manifest itself.
        FileMissing, FileChanged, FileUnlisted: names the first file that is wrong.
    """
    manifest = read_manifest(bundle)
    listed = {file.path for file in manifest.files} | {MANIFEST_NAME}
    for path in sorted(bundle.rglob("*")):
        if path.is_symlink() or (
            path.is_file() and path.relative_to(bundle).as_posix() not in listed
        ):
            raise FileUnlisted(path)
    total = sum(file.size for file in manifest.files)
    done = 0
    for file in manifest.files:
        for read in _verify_file(bundle / file.path, file, manifest.chunk_size):
            done += read
            progress("verify", done, total)
    return manifest


def verify_file(bundle: Path, manifest: Manifest, path: str) -> None:
    """Compare one file of ``bundle``, which ``manifest`` lists as ``path``, with it.

    Raises:
        FileMissing, FileChanged: it is not the one that was sealed.
    """
    file = next(file for file in manifest.files if file.path == path)
    for _ in _verify_file(bundle / path, file, manifest.chunk_size):
        pass


def _verify_file(path: Path, file: File, chunk_size: int) -> Iterator[int]:
    """Verify one file, yielding the bytes read so far, block by block."""
    if not path.is_file():
        raise FileMissing(path)
    size = path.stat().st_size
    if size != file.size:
        raise FileChanged(path, f"is {size} bytes long, the manifest says {file.size}")
    digest = ChunkDigest(chunk_size)
    with path.open("rb") as stream:
        while block := stream.read(_READ):
            digest.update(block)
            yield len(block)
    found = digest.describe(file.path, file.media_type)
    for index, (got, expected) in enumerate(zip(found.chunks, file.chunks, strict=True)):
        if got != expected:
            start = index * chunk_size
            end = min(start + chunk_size, size) - 1
            raise FileChanged(path, f"differs within bytes {start}-{end}")
    if found != file:
        raise FileChanged(path, "its digests do not match the manifest")
