"""Many runs of the harness in a row, good ones and faulty ones: what is left on the machine?

``python -m tests.bench.endurance --runs 100`` exports a tiny bundle, then measures it again
and again.  Runs take turns: a good one, each fault of ``tests/faults/catalogue.py`` on a
target of its own, and commands that are stopped at a moment drawn by the run's number.
After each run the processes, files, ports, file descriptors and threads that were not there
before it are counted; the last line says how many runs left something.
"""

from __future__ import annotations

import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import click
import psutil

from browser_harness.plan import PAGE
from exporter.pipeline import export
from targets import find_targets
from tests.browser.fake_bundle import write_bundle
from tests.checkpoints import VARIANTS, write_checkpoint
from tests.faults.catalogue import BOTH, CPU, FAULTS, NONE
from tests.faults.interruptions import measuring
from tests.faults.leftovers import left_behind, own_temporary_folder
from tests.faults.runner import Case, run

#: Seconds that a killed command's reaper is given.
REAP_SECONDS = 20.0


@dataclass(frozen=True)
class Run:
    """One run of the harness; ``work`` says how it ended, in a word or a code."""

    name: str
    work: Callable[[Path, Path], str]


def plan(bundle: Path) -> Iterator[Run]:
    """Good and bad turn by turn, without an end."""
    good = Run("good", lambda folder, temporary: _measured(bundle, "good", folder, temporary))
    faults = cycle(
        Run(name, lambda folder, temporary, name=name: _measured(bundle, name, folder, temporary))  # type: ignore[misc]
        for name in FAULTS
    )
    for number in range(sys.maxsize):
        yield next(faults)
        if number % 3 == 0:
            yield good
        if number % 3 == 1:
            yield _interruption(number)


def _measured(bundle: Path, name: str, folder: Path, temporary: Path) -> str:
    fault = NONE if name == "good" else FAULTS[name]
    target = CPU if CPU in fault.targets else fault.targets[0]
    [ending] = run(bundle, [Case(name, target, fault)], folder, temporary).values()
    failure = ending.report.failure
    found = failure.code if failure else None
    return "as expected" if found == fault.code else f"{found} instead of {fault.code}"


def _interruption(number: int) -> Run:
    draw = random.Random(number)  # noqa: S311
    sent = draw.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
    moment = draw.uniform(0.0, 5.0)

    def work(folder: Path, temporary: Path) -> str:
        write_bundle(folder / "bundle", ("wasm-q4", "wasm-sleeps"))
        before = left_behind(temporary)
        with measuring(folder / "bundle", folder / "report.json") as command:
            time.sleep(moment)
            command.send_signal(sent)
            command.communicate(timeout=60)
        deadline = time.monotonic() + REAP_SECONDS
        while left_behind(temporary) - before and time.monotonic() < deadline:
            time.sleep(0.1)
        return "as expected" if command.returncode in (130, -sent) else str(command.returncode)

    return Run(f"{sent.name} after {moment:.1f} s", work)


@click.command()
@click.option("--runs", default=100, show_default=True)
def main(runs: int) -> None:
    """Measure again and again; exit status 1 where something is left or ends otherwise."""
    own = psutil.Process()
    bad, endings = 0, Counter[str]()
    started = time.monotonic()
    with (
        own_temporary_folder() as temporary,
        tempfile.TemporaryDirectory(dir=Path(tempfile.gettempdir())) as scratch,
    ):
        checkpoint = write_checkpoint(VARIANTS["w4a16-g32"], Path(scratch) / "checkpoint")
        bundle = Path(scratch) / "bundle"
        export(checkpoint, find_targets(BOTH), bundle, runtime=PAGE.parent / "bundle")
        counts: list[tuple[int, int]] = []
        for number, each in enumerate(islice(plan(bundle), runs), start=1):
            before = left_behind(temporary)
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                ending = each.work(Path(folder), temporary)
            left = left_behind(temporary) - before
            counts.append((own.num_fds(), threading.active_count()))
            bad += bool(left)
            endings[ending] += 1
            click.echo(f"{number}/{runs} {each.name}: {ending}, {len(left)} left", err=True)
            for item in sorted(left):
                click.echo(f"    {item}", err=True)
        everything = left_behind(temporary)
    minutes = (time.monotonic() - started) / 60
    # The first run opens what stays open: asyncio's child watcher, the resolver's threads.
    (fds, threads), (last_fds, last_threads) = counts[min(5, runs - 1)], counts[-1]
    click.echo(
        f"{runs} runs in {minutes:.0f} minutes; {bad} left something; at the end "
        f"{len(everything)} processes, files and ports; file descriptors {fds} -> {last_fds}, "
        f"threads {threads} -> {last_threads}; endings: {dict(endings)}"
    )
    sys.exit(bool(bad or everything or set(endings) - {"as expected"}))


if __name__ == "__main__":
    main()
