"""Is this bundle whole?  Every file's length and digests against the manifest."""

from __future__ import annotations

from pathlib import Path

from exporter.write.errors import FileChanged, FileMissing, FileUnlisted
from exporter.write.shards import CHUNK_SIZE, ChunkDigest
from manifests.bundle import MANIFEST_NAME, File, Manifest, read_manifest
from manifests.progress import Progress, silent


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
        done = _verify_file(bundle / file.path, file, done, total, progress)
    return manifest


def _verify_file(path: Path, file: File, done: int, total: int, progress: Progress) -> int:
    if not path.is_file():
        raise FileMissing(path)
    size = path.stat().st_size
    if size != file.size:
        raise FileChanged(path, f"is {size} bytes long, the manifest says {file.size}")
    digest = ChunkDigest()
    with path.open("rb") as stream:
        while block := stream.read(CHUNK_SIZE):
            digest.update(block)
            done += len(block)
            progress("verify", done, total)
    found = digest.describe(file.path, file.media_type)
    for index, (got, expected) in enumerate(zip(found.chunks, file.chunks, strict=False)):
        if got != expected:
            start = index * CHUNK_SIZE
            raise FileChanged(path, f"differs within bytes {start}-{start + CHUNK_SIZE - 1}")
    if found != file:
        raise FileChanged(path, "its digests do not match the manifest")
    return done
