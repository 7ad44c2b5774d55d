"""One line per judged report, appended to a file that is never rewritten."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

from browser_harness.judge.environment import facts
from browser_harness.judge.figures import figure
from browser_harness.judge.metrics import METRICS
from manifests.errors import BadDocument, BadInput, NotFound
from manifests.history import Entry, Point
from manifests.report import Report


class HistoryTorn(BadInput):
    """The file does not end where a line does."""

    code = "history-torn"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: the last line is not whole, so nothing was appended",
            "delete that line, or name another file",
        )


def entry(report: Report) -> Entry:
    """The line of a judged ``report``; targets that failed are left out."""
    assert report.verdict is not None
    measured = {name: t for name, t in report.targets.items() if t.failure is None}
    return Entry(
        created=report.created,
        bundle=report.bundle.name,
        seal=report.bundle.seal,
        outcome=report.verdict.outcome,
        environment={name: facts(report, target) for name, target in measured.items()},
        figures={
            name: {
                metric: Point(value=found.value, interval=found.interval)
                for metric, known in METRICS.items()
                if (found := figure(known, target)).value is not None
            }
            for name, target in measured.items()
        },
    )


def append(path: Path, line: Entry) -> None:
    """Append ``line``: the whole of it or, where the disk is full, nothing.

    Gates that end at the same time wait for each other.

    Raises:
        HistoryTorn: the file's last line is not whole.
        OSError: the file cannot be written to.
    """
    data = f"{line.model_dump_json(exclude_none=True)}\n".encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        end = file.seek(0, os.SEEK_END)
        if end:
            file.seek(end - 1)
            if file.read(1) != b"\n":
                raise HistoryTorn(path)
        try:
            written = file.write(data)
            os.fsync(file.fileno())
        except OSError:
            os.ftruncate(file.fileno(), end)
            raise
        if written != len(data):
            os.ftruncate(file.fileno(), end)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def read(path: Path) -> list[Entry]:
    """Every line of the file at ``path``, in its order.

    Raises:
        NotFound: no such file.
        BadDocument: a line is no entry, or there is none; tells its number.
    """
    try:
        lines = path.read_bytes().splitlines()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        raise NotFound(path, "history") from None
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(Entry.parse(line, path))
        except BadDocument as error:
            reason = str(error).partition(": not a valid Entry: ")[2]
            raise BadDocument(path, "history", f"line {number}: {reason}") from None
    if not found:
        raise BadDocument(path, "history", "it holds no line")
    return found
