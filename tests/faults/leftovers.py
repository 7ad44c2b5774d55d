"""What a run leaves on the machine, looked for in other ways than the harness cleans up.

The harness knows its processes by the profile on their command line; here they are known
by the folder for temporary files that they inherited, which the harness never looks at.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest


@contextmanager
def own_temporary_folder() -> Iterator[Path]:
    """A folder for temporary files that only this process's children use.

    Another run of these tests, or of tabwright, has its own.  The path is short: Chromium
    puts a socket in it.
    """
    folder = Path(tempfile.mkdtemp(prefix="tw-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        yield folder
    shutil.rmtree(folder)


def left_behind(folder: Path) -> frozenset[str]:
    """Files in ``folder``, processes that were started with it, and sockets that listen."""
    return frozenset({*_files(folder), *_processes(folder), *_ports()})


def _files(folder: Path) -> Iterator[str]:
    yield from (str(path) for path in folder.iterdir())


def _processes(folder: Path) -> Iterator[str]:
    own = psutil.Process()
    children = {child.pid for child in own.children(recursive=True)}
    for process in psutil.process_iter():
        if process == own:
            continue
        try:
            inherited = process.environ().get("TMPDIR") == str(folder)
            if inherited or process.pid in children:
                yield f"process {process.pid}: {' '.join(process.cmdline())[:120]}"
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            continue  # another user's


def _ports() -> Iterator[str]:
    for connection in psutil.Process().net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN:
            yield f"port {connection.laddr.port}"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
