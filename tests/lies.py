"""Bundles that are whole and lie: for tests of what finds it out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.prove import prove
from exporter.write.shards import ChunkDigest
from manifests.bundle import MANIFEST_NAME, File, Manifest, Tensor, read_manifest
from manifests.errors import TabwrightError

#: Tells a lie in a bundle, and says of which row.
Damage = Callable[[Path], Tensor]


def reseal(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and describe all files anew: a bundle that is whole, and lies."""
    document = json.loads((bundle / MANIFEST_NAME).read_bytes())
    document["files"] = [_described(bundle, File(**file)) for file in document["files"]]
    change(document)
    manifest = Manifest.model_validate(document)
    (bundle / MANIFEST_NAME).write_bytes(manifest.sealed_bytes())


def _described(bundle: Path, file: File) -> dict[str, Any]:
    digest = ChunkDigest()
    digest.update((bundle / file.path).read_bytes())
    return digest.describe(file.path, file.media_type).model_dump()


def row_of(bundle: Path, choose: Callable[[Tensor], bool]) -> Tensor:
    return next(row for row in read_manifest(bundle).weights["q4"].tensors if choose(row))


def is_exact_linear(row: Tensor) -> bool:
    return row.role == "linear" and row.outcome == "exact"


def is_requantised(row: Tensor) -> bool:
    return row.outcome == "requantised"


def assert_found(damage: Damage, reason: str, checkpoint: Path, bundle: Path, copy: Path) -> None:
    """Damage a ``copy`` of the bundle: the proof says why it is not true, and of which tensor."""
    shutil.copytree(bundle, copy)
    row = damage(copy)
    with pytest.raises(TabwrightError) as caught:
        prove(copy, checkpoint)
    assert caught.value.code == "ledger-untrue"
    assert caught.value.exit_status == 3
    assert reason in str(caught.value)
    assert row.name in str(caught.value)
