"""A browser profile folder, and the reaper that sees to it that none outlives us."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from browser_harness import processes
from manifests.errors import EnvironmentProblem

#: The reaper gives up by itself before this: see the deadlines in ``processes``.
_REAP_SECONDS = 60.0


class ProfileFailed(EnvironmentProblem):
    """No folder could be made for the browser's profile."""

    code = "profile-failed"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"no folder could be made for the browser's profile: {reason}",
            "free space in the folder for temporary files, or name another in TMPDIR",
        )


class ProfileLeft(EnvironmentProblem):
    """A browser or its profile folder is still there."""

    code = "profile-left"

    def __init__(self, profile: Path, reason: str) -> None:
        super().__init__(
            f"{profile}: the browser on this profile could not be removed: {reason}",
            "end the processes that name this folder, then delete it",
        )


class Profile:
    """A browser profile folder that does not outlive this process.

    Use as a context manager.  At its end the browser's processes are killed, if any
    is left, and the folder is deleted; the same happens when this process is killed.

    Raises:
        ProfileFailed: on entry, when the folder cannot be made.
        ProfileLeft: at the end, when something of the browser is left; to another error
            that ends the block it is added as a note.
    """

    def __init__(self) -> None:
        # -P keeps this folder's modules from shadowing others; a session of its own
        # keeps the terminal's Ctrl-C from ending the reaper before its work.
        self._reaper = subprocess.Popen(
            [sys.executable, "-P", processes.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        assert self._reaper.stdout is not None
        name = self._reaper.stdout.readline().rstrip("\n")
        if not name:
            _, complaints = self._reaper.communicate()
            lines = complaints.strip().splitlines() or ["the reaper ended"]
            raise ProfileFailed(lines[-1])
        self.path = Path(name)
        return self

    def take_along(self) -> None:
        """Have what the browser, now that it runs, keeps outside of the folder deleted with it."""
        folder = processes.socket_folder(self.path)
        if folder is None:
            return
        assert self._reaper.stdin is not None
        with suppress(BrokenPipeError):  # A reaper that is gone is told of at the end.
            self._reaper.stdin.write(f"{folder}\n")
            self._reaper.stdin.flush()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        reason = self._reap()
        if not reason:
            return
        left = ProfileLeft(self.path, reason)
        if error is None:
            raise left
        error.add_note(str(left))

    def _reap(self) -> str:
        """Let the reaper do its work; why it could not, or nothing."""
        try:
            _, complaints = self._reaper.communicate(timeout=_REAP_SECONDS)
        except subprocess.TimeoutExpired:
            self._reaper.kill()
            self._reaper.communicate()
            return f"not within {_REAP_SECONDS:g} s"
        if self._reaper.returncode == 0:
            return ""
        return (complaints.strip().splitlines() or ["something keeps it"])[-1]
