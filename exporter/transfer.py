"""What weights take on the wire when a server compresses them.

Codes of dense weights are close to noise; zeros are not, so this is where sparsity pays
in a browser.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from manifests.base import Schema
from manifests.bundle import Manifest
from manifests.errors import EnvironmentProblem
from manifests.progress import Progress, silent

_READ = 1 << 20


class EncoderMissing(EnvironmentProblem):
    """A compressor's package is not installed."""

    code = "encoder-missing"

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed", "pip install 'tabwright[transfer]'"
        )


class _Encoder(Protocol):
    """Compresses a stream piece by piece."""

    def compress(self, data: bytes) -> bytes:
        """Take ``data``; give what is ready."""
        ...

    def flush(self) -> bytes:
        """Give the rest."""
        ...


class _Brotli:
    def __init__(self, module: Any, level: int) -> None:
        self._stream = module.Compressor(quality=level)

    def compress(self, data: bytes) -> bytes:
        return bytes(self._stream.process(data))

    def flush(self) -> bytes:
        return bytes(self._stream.finish())


def _zstandard(module: Any, level: int) -> _Encoder:
    encoder: _Encoder = module.ZstdCompressor(level=level).compressobj()
    return encoder


@dataclass(frozen=True)
class Encoding:
    """A ``Content-Encoding`` at a level that servers use as they send."""

    package: str
    level: int
    start: Callable[[Any, int], _Encoder]


#: By the header's token.
ENCODINGS: dict[str, Encoding] = {
    "br": Encoding("brotli", 5, _Brotli),
    "zstd": Encoding("zstandard", 9, _zstandard),
}


class Encoded(Schema):
    """A weight set's shards: bytes as they are, and compressed at ``level``."""

    level: int
    plain: int
    compressed: int


class Transfer(Schema):
    """By weight set and ``Content-Encoding``."""

    bundle: str
    weights: dict[str, dict[str, Encoded]]


def measure_transfer(bundle: Path, manifest: Manifest, progress: Progress = silent) -> Transfer:
    """Compress every shard of ``bundle`` and count; nothing is written.

    Raises:
        EncoderMissing: the extra ``transfer`` is not installed.
        OSError: a shard cannot be read.
    """
    modules = {token: _load(encoding.package) for token, encoding in ENCODINGS.items()}
    weights: dict[str, dict[str, Encoded]] = {}
    for name, stored in sorted(manifest.weights.items()):
        paths = [bundle / shard for shard in stored.shards]
        weights[name] = {
            token: _encode(paths, encoding, modules[token], f"{token} {name}", progress)
            for token, encoding in ENCODINGS.items()
        }
    return Transfer(bundle=str(bundle), weights=weights)


def _load(package: str) -> Any:
    try:
        return import_module(package)
    except ModuleNotFoundError:
        raise EncoderMissing(package) from None


def _encode(
    paths: list[Path], encoding: Encoding, module: Any, phase: str, progress: Progress
) -> Encoded:
    total = sum(path.stat().st_size for path in paths)
    done = size = 0
    for path in paths:
        encoder = encoding.start(module, encoding.level)
        with path.open("rb") as file:
            while data := file.read(_READ):
                size += len(encoder.compress(data))
                done += len(data)
                progress(phase, done, total)
        size += len(encoder.flush())
    return Encoded(level=encoding.level, plain=total, compressed=size)
