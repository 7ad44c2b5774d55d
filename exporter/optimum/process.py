"""Another program, and whatever it starts, for as long as it is waited for."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress

#: Settings of our own interpreter that another environment must not inherit.
_OWN = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")


class TimedOut(Exception):
    """A program was ended because it took too long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"it took longer than {seconds:.0f} s")


def run(command: Sequence[str], seconds: float) -> tuple[int, str]:
    """Run ``command``; return its exit status and the last line that it wrote to stderr.

    However this ends, Ctrl-C included, neither it nor what it started is left running.

    Raises:
        TimedOut: it took longer than ``seconds``.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _OWN}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONNOUSERSITE": "1"}
    with tempfile.TemporaryFile() as said:
        # In a session of its own, so that it and its children can be ended together.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            env=environment,
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise TimedOut(seconds) from None
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        lines = said.read().decode(errors="replace").strip().splitlines()
    return status, lines[-1] if lines else ""
