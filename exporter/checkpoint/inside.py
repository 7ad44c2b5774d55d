"""What lies in a folder that somebody else made."""

from __future__ import annotations

import os
from pathlib import Path

from exporter.checkpoint.errors import LinkOutside


def refuse_links_out(folder: Path) -> None:
    """Refuse a link that leads out of ``folder``: what it names would go into a bundle.

    The Hub's own cache is let be: its snapshots/<revision> links to its blobs.

    Raises:
        LinkOutside: names the link.
    """
    homes = _homes(folder)
    for path in sorted(folder.iterdir()):
        _refuse_link_out(path, homes)


def refuse_link_out(path: Path) -> None:
    """The same for the one file ``path``, which may be a part that a name implies.

    Raises:
        LinkOutside: it is a link out of the folder that it lies in.
    """
    _refuse_link_out(path, _homes(path.parent))


def file_names(folder: Path) -> frozenset[str]:
    """Names of the files in ``folder``.

    A name out of a hostile file is looked up here: a path made of it may be too long for
    the system, or none at all.
    """
    return frozenset(path.name for path in folder.iterdir() if path.is_file())


def _homes(folder: Path) -> list[Path]:
    """Folders that links in ``folder`` may lead to."""
    own = folder.resolve()
    # The Hub keeps a repository's folders below the revision: split files often lie in one.
    inner = (path for path in (own, *own.parents) if path.parent.name == "snapshots")
    return [own, *(path.parent.parent / "blobs" for path in inner)]


def _refuse_link_out(path: Path, homes: list[Path]) -> None:
    if path.is_symlink() and not any(_target(path).is_relative_to(home) for home in homes):
        raise LinkOutside(path)


def _target(link: Path) -> Path:
    """Where ``link`` leads; Path.resolve would raise where it leads in a circle."""
    return Path(os.path.realpath(link))
