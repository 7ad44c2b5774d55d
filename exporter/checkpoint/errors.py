"""What can be wrong with a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from exporter.checkpoint.schemes import SUPPORTED
from manifests.errors import BadInput


class NotACheckpoint(BadInput):
    """The path is not a Hugging Face checkpoint folder."""

    code = "not-a-checkpoint"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: not a checkpoint: {reason}",
            "give a folder that save_pretrained wrote: config.json, tokenizer.json, *.safetensors",
        )


class PickleRefused(BadInput):
    """Weights come as a pickle, which runs code when it is read."""

    code = "pickle-refused"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: a pickle, which is a program and is never opened",
            "save the checkpoint again with safetensors",
        )


class ShardMissing(BadInput):
    """The index names a file that is not there."""

    code = "shard-missing"

    def __init__(self, path: Path, index: Path) -> None:
        super().__init__(f"{path}: named in {index.name} but missing", "copy the whole checkpoint")


class ShardCorrupt(BadInput):
    """A safetensors file contradicts itself or its own length."""

    code = "shard-corrupt"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}", "the file is damaged or cut short: copy it again")


class LinkOutside(BadInput):
    """A symbolic link leads out of the checkpoint, to a file that is not the model's."""

    code = "link-outside"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: a symbolic link out of its folder", "copy the file that it names there"
        )


class TensorMissing(BadInput):
    """A tensor that the architecture needs is not in the checkpoint."""

    code = "tensor-missing"

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(f"{path}: no tensor {name}", "the checkpoint is incomplete: save it again")


class TensorUnknown(BadInput):
    """A tensor that the architecture does not use: leaving it out would change answers."""

    code = "tensor-unknown"

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(
            f"{path}: tensor {name} has no place in the architecture that config.json names",
            "merge adapters first, or correct config.json",
        )


class WrongShape(BadInput):
    """A tensor's shape or type does not fit the config or its scheme."""

    code = "wrong-shape"

    def __init__(self, path: Path, name: str, reason: str) -> None:
        super().__init__(f"{path}: tensor {name}: {reason}", "config.json and weights do not match")


class NotFinite(BadInput):
    """A tensor holds NaN or infinity, which no code can stand for."""

    code = "tensor-not-finite"

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(
            f"{path}: tensor {name} holds NaN or infinity",
            "the checkpoint was broken while it was trained or compressed: make it again",
        )


class OutOfRange(BadInput):
    """A tensor holds a value that no float16 scale reaches: it would become another."""

    code = "tensor-out-of-range"

    def __init__(self, path: Path, name: str, largest: float) -> None:
        super().__init__(
            f"{path}: tensor {name} holds values beyond {largest:g}",
            "no working model has such weights: the checkpoint is damaged, make it again",
        )


class UnsupportedScheme(BadInput):
    """A compression scheme, or a part of one, that is not read."""

    code = "unsupported-scheme"

    def __init__(self, path: Path, scheme: str) -> None:
        super().__init__(
            f"{path}: compression scheme {scheme} is not supported",
            f"supported: {'; '.join(SUPPORTED)}",
        )


class UnsupportedArchitecture(BadInput):
    """An architecture that is not exported yet."""

    code = "unsupported-architecture"

    def __init__(self, path: Path, architecture: str, supported: Iterable[str]) -> None:
        super().__init__(
            f"{path}: architecture {architecture} is not supported",
            f"supported: {', '.join(supported)}",
        )
