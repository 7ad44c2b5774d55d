"""The processes of one browser, and the reaper that outlives us to end them.

Chromium passes ``--user-data-dir`` on to every process it starts, so a profile
folder of our own names all of them, also those whose parent is already dead.

The reaper is this file run as a program of its own: it makes the profile folder,
waits until its standard input closes, which the system does for us however we
end, then ends the browser and deletes the folder, and those that it was told.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import psutil

_END_SECONDS = 10.0

#: ``org.chromium.Chromium.XXXXXX``, ``com.google.Chrome.XXXXXX``.
_SOCKET_FOLDER = re.compile(r"(?:org\.chromium\.Chromium|com\.google\.Chrome)[\w.]*\.\w{6}")


def find_processes(profile: Path) -> list[psutil.Process]:
    """The living processes of the browser that runs on ``profile``."""
    argument = f"--user-data-dir={profile}"
    found = []
    for process in psutil.process_iter():
        try:
            # Chromium's zygotes rewrite their argument list into one string.
            if argument in " ".join(process.cmdline()).split(" "):
                found.append(process)
        except psutil.Error:
            continue  # it ended, or is another user's
    return found


def process_type(process: psutil.Process) -> str:
    """``browser``, ``renderer``, ``gpu-process``, ``utility``, ``zygote`` ...

    Raises:
        psutil.Error: the process ended.
    """
    for argument in " ".join(process.cmdline()).split(" "):
        if argument.startswith("--type="):
            return argument.removeprefix("--type=")
    return "browser"


def end_processes(profile: Path) -> bool:
    """Kill every process of the browser on ``profile``; tells whether all are gone."""
    deadline = time.monotonic() + _END_SECONDS
    while processes := find_processes(profile):
        if time.monotonic() > deadline:
            return False
        for process in processes:
            try:
                process.kill()
            except psutil.Error:
                continue  # it ended, or it is not ours to kill: the deadline tells
        psutil.wait_procs(processes, timeout=1)
    return True


def delete_folder(folder: Path) -> bool:
    """Delete it; tells whether it is gone."""
    deadline = time.monotonic() + _END_SECONDS
    while folder.exists():
        shutil.rmtree(folder, ignore_errors=True)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def socket_folder(profile: Path) -> Path | None:
    """The folder that a running browser on ``profile`` has for its socket.

    The path to a socket must be short, so Chromium puts it in the folder for temporary
    files; a link in the profile names it (chrome/browser/process_singleton_posix.cc).  A
    browser that is killed while it ends has removed the link, but not yet the folder.
    """
    try:
        folder = (profile / "SingletonSocket").readlink().parent
    except OSError:
        return None  # a system without such sockets, or none was made yet
    return folder if _SOCKET_FOLDER.fullmatch(folder.name) else None


def _reap() -> int:
    """Exit status 1 when something is left; no folder is made when that ends with a traceback."""
    profile = Path(tempfile.mkdtemp(prefix="tabwright-profile-"))
    told = ""
    try:
        sys.stdout.write(f"{profile}\n")
        sys.stdout.flush()
        told = sys.stdin.read()
    finally:
        # A browser that is just starting may write again after the first look.
        done = end_processes(profile) and delete_folder(profile) and end_processes(profile)
        kept = [line for line in told.splitlines() if not delete_folder(Path(line))]
    return 0 if done and not kept else 1


if __name__ == "__main__":
    sys.exit(_reap())
