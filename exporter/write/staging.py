"""A bundle appears whole or not at all.

Everything is written into a sibling folder; the manifest comes last; each file is
synced; then the folder is renamed.  Whatever ends the work early takes the folder with it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.write.errors import NotReplaceable, OutputExists
from manifests.bundle import MANIFEST_NAME


def check_output(out: Path, *, force: bool) -> None:
    """Refuse an output that must not be replaced, before any work is done.

    Raises:
        OutputExists: it exists and ``force`` is not set.
        NotReplaceable: ``force`` is set, but it is not a bundle or an empty folder.
    """
    if not out.exists():
        return
    if not force:
        raise OutputExists(out)
    if not out.is_dir() or not ((out / MANIFEST_NAME).is_file() or not any(out.iterdir())):
        raise NotReplaceable(out)


@contextmanager
def staged(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a folder to write into; it becomes ``out`` when the block ends without error.

    Raises:
        OutputExists, NotReplaceable: see :func:`check_output`; what came to be there
            meanwhile counts too, and stays.
    """
    check_output(out, force=force)
    out.parent.mkdir(parents=True, exist_ok=True)
    stage = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        stage.chmod(0o755)
        yield stage
        for path in sorted(stage.rglob("*")):
            _sync(path)
        _sync(stage)
        check_output(out, force=force)
        if force:
            _replace(stage, out)
        else:
            stage.rename(out)
        _sync(out.parent)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _replace(stage: Path, out: Path) -> None:
    """Put ``stage`` where ``out`` is; whatever interrupts it, one of the two is there."""
    if not out.exists():
        stage.rename(out)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-old-", dir=out.parent))
    old = aside / out.name
    try:
        out.rename(old)
        stage.rename(out)
    finally:
        if old.exists() and not out.exists():
            old.rename(out)
        shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
