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
    own = folder.resolve()
    homes = [own]
    if own.parent.name == "snapshots":
        homes.append(own.parent.parent / "blobs")
    for path in sorted(folder.iterdir()):
        if path.is_symlink() and not any(_target(path).is_relative_to(home) for home in homes):
            raise LinkOutside(path)


def file_names(folder: Path) -> frozenset[str]:
    """Names of the files in ``folder``.

    A name out of a hostile file is looked up here: a path made of it may be too long for
    the system, or none at all.
    """
    return frozenset(path.name for path in folder.iterdir() if path.is_file())


def _target(link: Path) -> Path:
    """Where ``link`` leads; Path.resolve would raise where it leads in a circle."""
    return Path(os.path.realpath(link))
