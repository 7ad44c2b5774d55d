"""Feeds mutants of :data:`tests.attacks.kinds.KINDS` to the exporter and watches it.

``python -m tests.attacks.fuzz --seconds 3600`` or ``--rounds 300``.  The work happens in
a process of its own, so that a crash, a hang or a bomb is a finding like any other: the
input is kept in build/fuzz, and the process is started again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import psutil

from tests.attacks.kinds import EXPORTS, KINDS, Kind
from tests.attacks.worker import PASSED, Begun, Done, Ended, Plan, work

#: Seconds of processor time after which a worker that says nothing is beyond Python's
#: reach, and of wall time after which it waits for something that does not come.
_SILENCE, _STALL = 30.0, 600.0
#: Seconds between two lines of progress.
_INTERVAL = 60.0
#: In memory where the system has files there: every export waits for its own to be on disk.
_SCRATCH = next((path for path in ("/dev/shm",) if os.access(path, os.W_OK)), None)  # noqa: S108
_ALL = {**KINDS, **EXPORTS}


@dataclass
class Summary:
    """What became of the inputs: by kind, by error code; and what must not be."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    findings: list[str] = field(default_factory=list)

    def refused(self, kind: str) -> float:
        """Share of the kind's mutants that were refused."""
        counts = self.outcomes[kind]
        return 1 - counts[PASSED] / counts.total()

    @property
    def inputs(self) -> int:
        """How many there were."""
        return sum(counts.total() for counts in self.outcomes.values())


def run(
    kinds: Mapping[str, Kind], seed: int, keep: Path, *, rounds: int | None, seconds: float | None
) -> Summary:
    """Attack for so many ``rounds``, a mutant of each kind in each, or for ``seconds``.

    What must not be is kept in ``keep``, a folder a finding.
    """
    summary = Summary()
    until = None if seconds is None else time.monotonic() + seconds
    context = multiprocessing.get_context("spawn")
    while until is None or time.monotonic() < until:
        with tempfile.TemporaryDirectory(prefix="tabwright-fuzz-", dir=_SCRATCH) as folder:
            ours, theirs = context.Pipe(duplex=False)
            plan = Plan(kinds, seed, rounds, Path(folder))
            worker = context.Process(target=work, args=(plan, theirs))
            worker.start()
            theirs.close()
            try:
                ended = _follow(ours, worker, summary, keep, until)
            finally:
                worker.kill()
                worker.join()
        if ended or until is None:
            break
        seed += 1
    return summary


def _follow(
    connection: Connection,
    worker: SpawnProcess,
    summary: Summary,
    keep: Path,
    until: float | None,
) -> bool:
    """Take down what a worker tells; False where it died or fell silent."""
    at: Begun | None = None
    told = time.monotonic()
    while until is None or time.monotonic() < until:
        if not _speaks(connection, psutil.Process(worker.pid)):
            _keep(summary, keep, at, "fell silent")
            return False
        try:
            message = connection.recv()
        except EOFError:
            worker.join()
            _keep(summary, keep, at, f"died with status {worker.exitcode}")
            return False
        match message:
            case Begun():
                at = message
            case Ended(code, finding):
                assert at is not None
                summary.outcomes[at.kind][code] += 1
                if finding:
                    _keep(summary, keep, at, finding)
            case Done():
                return True
        if until is not None and time.monotonic() - told > _INTERVAL:
            told = time.monotonic()
            sys.stderr.write(f"{summary.inputs} inputs, {len(summary.findings)} findings\n")
    return True


def _speaks(connection: Connection, worker: psutil.Process) -> bool:
    """Wait for the next word; a worker that is kept from working is no silent one."""
    began, worked = time.monotonic(), _worked(worker)
    while not connection.poll(1.0):
        if time.monotonic() - began > _STALL or _worked(worker) - worked > _SILENCE:
            return False
    return True


def _worked(worker: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        times = worker.cpu_times()
        return float(times.user + times.system)
    return 0.0


def _keep(summary: Summary, keep: Path, at: Begun | None, text: str) -> None:
    """Copy the input that was being read, and say what was wrong with it."""
    kind = "start" if at is None else at.kind
    keep.mkdir(parents=True, exist_ok=True)
    place = keep / f"{len(list(keep.iterdir())):03} {kind}"
    place.mkdir()
    if at is not None:
        shutil.copytree(at.folder, place, dirs_exist_ok=True)
    (place / "finding.txt").write_text(text, errors="backslashreplace")
    summary.findings.append(f"{place}: {text.strip().splitlines()[-1]:.200}")
    sys.stderr.write(ascii(summary.findings[-1]) + "\n")


def main() -> int:
    """Run, print the summary, and fail where something was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    amount = parser.add_mutually_exclusive_group(required=True)
    amount.add_argument("--seconds", type=float)
    amount.add_argument("--rounds", type=int, help="a mutant of each kind in each")
    parser.add_argument("--kind", action="append", choices=list(_ALL), help="all by default")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, default=Path("build/fuzz"))
    given = parser.parse_args()
    # SIGTERM unwinds the stack as Ctrl-C does: worker and temporary folder go with it.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    kinds = {name: _ALL[name] for name in given.kind or _ALL}
    summary = run(kinds, given.seed, given.keep, rounds=given.rounds, seconds=given.seconds)
    counts = {kind: dict(counts.most_common()) for kind, counts in summary.outcomes.items()}
    result = {"inputs": summary.inputs, "findings": summary.findings, "outcomes": counts}
    sys.stdout.write(json.dumps(result, indent=1) + "\n")
    return 1 if summary.findings else 0


if __name__ == "__main__":
    sys.exit(main())
