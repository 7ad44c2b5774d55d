"""The one error root: a stable code, an exit status, a sentence and a next step.

The command line prints ``code: sentence`` and the next step; a traceback is
shown with ``--debug`` only.  Codes are part of the interface: CI scripts match
on them, so a code is never renamed and never means something else.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

EXIT_OK = 0
EXIT_GATE_FAILED = 1
EXIT_USAGE = 2
EXIT_BAD_INPUT = 3
EXIT_ENVIRONMENT = 4
EXIT_INCONCLUSIVE = 5
EXIT_INTERNAL = 70
"""A fault of ours, as sysexits.h numbers it: never one of the verdicts above."""
EXIT_INTERRUPTED = 130
#: Characters of a sentence; a path has at most 4096 bytes, and most are far shorter.
_LONGEST = 2000


class TabwrightError(Exception):
    """Root of every error that a user can meet.

    Attributes:
        code: stable identifier, e.g. ``checkpoint-truncated``; of the class, except
            where an error is passed on from the page with the page's own code.
        exit_status: what the process exits with.
        next_step: what the user can do about it; may be empty.
    """

    code: str = "internal"
    exit_status: ClassVar[int] = EXIT_BAD_INPUT

    def __init__(self, sentence: str, next_step: str = "") -> None:
        super().__init__(_legible(sentence))
        self.next_step = next_step


def _legible(sentence: str) -> str:
    """What a terminal shows as it is: names out of hostile files may steer it, or fill it."""
    shown = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in sentence)
    if len(shown) <= _LONGEST:
        return shown
    half = _LONGEST // 2
    return f"{shown[:half]} ... {shown[-half:]}"


class BadInput(TabwrightError):
    """A file that the user gave cannot be used."""

    code = "bad-input"


class Interrupted(TabwrightError):
    """Ctrl-C, SIGTERM or SIGHUP came before the end."""

    code = "interrupted"
    exit_status = EXIT_INTERRUPTED

    def __init__(self) -> None:
        super().__init__("stopped before the end; nothing half-written is left")


class EnvironmentProblem(TabwrightError):
    """This machine lacks something: a browser, an adapter, a package."""

    code = "environment"
    exit_status = EXIT_ENVIRONMENT


class NotFound(BadInput):
    """A named file does not exist."""

    code = "not-found"

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"{path}: no such {what}", "check the path")


class BadDocument(BadInput):
    """A JSON or TOML document does not fit its schema."""

    code = "bad-document"

    def __init__(self, path: Path, what: str, reason: str) -> None:
        super().__init__(
            f"{path}: not a valid {what}: {reason}",
            "write it again with the command that makes it, or correct that field",
        )
