"""Weight shards, written as they come: the writer never holds more than one buffer.

Tensors are aligned and never straddle two files.  A file's SHA-256 and those of its
chunks are taken while it is written, so nothing is read back to be digested.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from exporter.write.errors import TensorTooLarge
from manifests.bundle import File, Range

ALIGNMENT = 256
CHUNK_SIZE = 4 << 20


class ChunkDigest:
    """SHA-256 of a stream, whole and by chunks."""

    def __init__(self, chunk_size: int = CHUNK_SIZE) -> None:
        self.size = 0
        self._chunk_size = chunk_size
        self._whole = hashlib.sha256()
        self._chunk = hashlib.sha256()
        self._chunks: list[str] = []

    def update(self, data: bytes | memoryview) -> None:
        """Add ``data``."""
        self._whole.update(data)
        view = memoryview(data).cast("B")
        while view:
            room = self._chunk_size - self.size % self._chunk_size
            part, view = view[:room], view[room:]
            self._chunk.update(part)
            self.size += len(part)
            if self.size % self._chunk_size == 0:
                self._close_chunk()

    def describe(self, path: str, media_type: str) -> File:
        """The descriptor of the stream as the bundle's file ``path``."""
        if self.size % self._chunk_size:
            self._close_chunk()
        return File(
            path=path,
            media_type=media_type,
            size=self.size,
            sha256=self._whole.hexdigest(),
            chunks=tuple(self._chunks),
        )

    def _close_chunk(self) -> None:
        self._chunks.append(self._chunk.hexdigest())
        self._chunk = hashlib.sha256()


class ShardWriter:
    """Writes ``<stem>.onnx_data``, ``_data_1``, ... under ``folder``/onnx.

    Use as a context manager; ``files`` is complete once it is left.
    """

    def __init__(self, folder: Path, stem: str, max_shard_bytes: int) -> None:
        self.files: list[File] = []
        self._folder = folder
        self._stem = stem
        self._limit = max_shard_bytes
        self._file: BinaryIO | None = None
        self._shared: dict[bytes, Range] = {}
        self._digest = ChunkDigest()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._close()

    def begin(self, name: str, length: int) -> Range:
        """Start a tensor of ``length`` bytes; they follow by :meth:`write`.

        Raises:
            TensorTooLarge: no shard can hold it.
        """
        if length > self._limit:
            raise TensorTooLarge(name, length, self._limit)
        padding = -self._digest.size % ALIGNMENT
        if self._file is None or self._digest.size + padding + length > self._limit:
            self._open_next()
        else:
            self._put(bytes(padding))
        return Range(file=self._path(len(self.files)), offset=self._digest.size, length=length)

    def write(self, values: NDArray[np.generic]) -> None:
        """Append the bytes of ``values``."""
        self._put(np.ascontiguousarray(values).data.cast("B"))

    def share(self, name: str, values: NDArray[np.generic]) -> Range:
        """Write ``values``, or find the equal ones that came this way before."""
        key = hashlib.sha256(np.ascontiguousarray(values).data.cast("B")).digest()
        if key not in self._shared:
            self._shared[key] = self.begin(name, values.nbytes)
            self.write(values)
        return self._shared[key]

    def _path(self, index: int) -> str:
        suffix = f"_{index}" if index else ""
        return f"onnx/{self._stem}.onnx_data{suffix}"

    def _open_next(self) -> None:
        self._close()
        path = self._folder / self._path(len(self.files))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("wb")
        self._digest = ChunkDigest()

    def _put(self, data: bytes | memoryview) -> None:
        assert self._file is not None
        self._file.write(data)
        self._digest.update(data)

    def _close(self) -> None:
        if self._file is None:
            return
        self._file.close()
        self._file = None
        self.files.append(
            self._digest.describe(self._path(len(self.files)), "application/octet-stream")
        )
