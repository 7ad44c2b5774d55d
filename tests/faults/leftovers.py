"""What a run leaves on the machine, looked for in other ways than the harness cleans up.

The harness knows its processes by the profile on their command line; here they are known
by the folder for temporary files that they inherited, which the harness never looks at.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

_BROWSERS_FILES = ("tabwright-profile-", "playwright-", "org.chromium.", "com.google.")


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


@pytest.fixture(scope="session", autouse=True)
def temporary() -> Iterator[Path]:
    with own_temporary_folder() as folder:
        yield folder


@pytest.fixture
def nothing_left(temporary: Path) -> Iterator[None]:
    """Fails the test when it leaves a process, a file or a port behind."""
    before = left_behind(temporary)
    yield
    assert left_behind(temporary) - before == set()


def left_behind(folder: Path) -> frozenset[str]:
    """Files in ``folder``, processes that were started with it, and sockets that listen."""
    return frozenset({*_files(folder), *_processes(folder), *_ports()})


def left_by_browsers(folder: Path) -> frozenset[str]:
    """The same of browsers only, where others use ``folder`` too."""
    files = {path for path in _files(folder) if Path(path).name.startswith(_BROWSERS_FILES)}
    return frozenset({*files, *_heirs(folder)})


def _files(folder: Path) -> Iterator[str]:
    yield from (str(path) for path in folder.iterdir())


def _processes(folder: Path) -> Iterator[str]:
    yield from _heirs(folder)
    yield from map(_describe, psutil.Process().children(recursive=True))


def _heirs(folder: Path) -> Iterator[str]:
    """Processes that inherited ``folder``, whoever their parent is now."""
    for process in psutil.process_iter():
        # Another user's may not be looked at, and one that ended need not be.
        with suppress(psutil.Error):
            if process.pid != os.getpid() and process.environ().get("TMPDIR") == str(folder):
                yield _describe(process)


def _describe(process: psutil.Process) -> str:
    try:
        return f"process {process.pid}: {' '.join(process.cmdline())[:120]}"
    except psutil.Error as error:
        return f"process {process.pid}: {type(error).__name__}"


def _ports() -> Iterator[str]:
    for connection in psutil.Process().net_connections("inet"):
        if connection.status == psutil.CONN_LISTEN:
            yield f"port {connection.laddr.port}"


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
