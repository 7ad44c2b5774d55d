"""How long work tells that it goes on.

Work calls ``progress(phase, done, total)``, in whatever unit ``phase`` counts;
who asked for the work decides how that looks.  The command line draws bars on
stderr, so that stdout stays the result.
"""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]


def silent(phase: str, done: int, total: int) -> None:
    """Show nothing: for tests and for use as a library."""
