"""How long work tells that it goes on.

Work calls ``progress(phase, done, total)``, in whatever unit ``phase`` counts;
who asked for the work decides how that looks.  What a person sees of it goes to
stderr, so that stdout stays the result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

Progress = Callable[[str, int, int], None]

#: Seconds between two lines about the same phase.
LINE_INTERVAL = 10.0


def silent(phase: str, done: int, total: int) -> None:
    """Show nothing: for tests and for use as a library."""


def say(line: str) -> None:
    """Write to stderr; that nobody reads there is no reason to stop."""
    with suppress(BrokenPipeError):
        click.echo(line, err=True)


class Bars:
    """Progress as bars on a terminal, one per phase."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Draw ``phase`` at ``done`` of ``total``; a total of 0 is unknown."""
        if self._bars is None:
            self._bars = self._start()
        if phase not in self._tasks:
            self._tasks[phase] = self._bars.add_task(phase, total=None)
        self._bars.update(self._tasks[phase], completed=done, total=total or None)

    def close(self) -> None:
        """Leave the bars as they stand and give the terminal back."""
        if self._bars is not None:
            self._bars.stop()
        self._bars = None
        self._tasks = {}

    @staticmethod
    def _start() -> RichProgress:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TimeElapsedColumn

        bars = Progress(
            "{task.description}",
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            redirect_stdout=False,
        )
        bars.start()
        return bars


class Lines:
    """Progress as lines, for logs: when a phase begins, when it ends, and now and then."""

    def __init__(self) -> None:
        self._said: dict[str, float] = {}

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Say where ``phase`` is, if it is time to."""
        now = time.monotonic()
        ended = 0 < total <= done
        if not ended and now - self._said.get(phase, -LINE_INTERVAL) < LINE_INTERVAL:
            return
        self._said[phase] = now
        share = f": {100 * done // total} %" if total else ""
        say(f"{phase}{share}")

    def close(self) -> None:
        """Forget the phases."""
        self._said = {}
