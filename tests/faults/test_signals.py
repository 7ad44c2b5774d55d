"""Ctrl-C, SIGTERM, SIGHUP and SIGKILL: one line at most, and nothing is left."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from browser_harness.measure import measure
from browser_harness.plan import Options
from browser_harness.processes import find_processes
from manifests.report import Report
from tests.browser.conftest import FAKE_PAGE
from tests.browser.fake_bundle import write_bundle
from tests.faults.interruptions import measuring
from tests.faults.leftovers import left_behind

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

HANGING = """
import asyncio, sys
from browser_harness.launch import driver, launch

async def main():
    async with driver() as playwright, launch(playwright, adapter="none") as session:
        print(session.profile, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


#: The last one is a user who does not wait.
SENT = [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGHUP,), (signal.SIGINT, signal.SIGINT)]


@pytest.mark.parametrize("sent", SENT, ids=lambda sent: "-".join(each.name for each in sent))
def test_interrupted_measure_cleans_up_says_one_thing_and_keeps_what_it_has(
    tmp_path: Path, sent: tuple[signal.Signals, ...], temporary: Path
) -> None:
    write_bundle(tmp_path / "bundle", ("wasm-q4", "wasm-sleeps"))
    before = left_behind(temporary)
    report = tmp_path / "report.json"
    with measuring(tmp_path / "bundle", report) as run:
        assert run.stderr is not None
        said = iter(run.stderr.readline, "")
        assert any(line.startswith("wasm-sleeps: fresh pages") for line in said)
        for each in sent:
            # A terminal's Ctrl-C reaches the whole group, the driver included.
            os.killpg(run.pid, each)
            time.sleep(0.1)
        out, complaints = run.communicate(timeout=60)
    assert (run.returncode, out) == (130, "")
    (line,) = complaints.strip().splitlines()
    assert line.startswith("error[interrupted]")
    # One who does not wait has it as it was, or not at all.
    if len(sent) == 1 or report.exists():
        assert _failures(report) == {"wasm-q4": None, "wasm-sleeps": "interrupted"}
    if len(sent) == 1:
        assert left_behind(temporary) == before
    # One who does not wait leaves the rest to the reaper.
    wait_until(lambda: left_behind(temporary) == before, seconds=30)


def _failures(report: Path) -> dict[str, str | None]:
    targets = Report.load(report).targets
    return {name: t.failure.code if t.failure else None for name, t in targets.items()}


#: Seconds after the start, from before the first line of code to after the first target.
MOMENTS = [random.Random(seed).uniform(0.0, 5.0) for seed in range(4)]  # noqa: S311


@pytest.mark.parametrize(
    ("moment", "sent"), [*zip(MOMENTS, [signal.SIGINT, signal.SIGTERM] * 2, strict=True)]
)
def test_interrupted_at_any_moment(
    tmp_path: Path, moment: float, sent: signal.Signals, temporary: Path
) -> None:
    write_bundle(tmp_path / "bundle", ("wasm-q4", "wasm-sleeps"))
    before = left_behind(temporary)
    report = tmp_path / "report.json"
    with measuring(tmp_path / "bundle", report) as run:
        time.sleep(moment)
        os.killpg(run.pid, sent)
        out, complaints = run.communicate(timeout=60)
    # Python's own way to end is before the command's first line of code.
    assert run.returncode in (130, -sent), complaints
    assert out == ""
    if run.returncode == 130:
        assert complaints.splitlines()[-1].startswith("error[interrupted]")
    if report.exists():
        assert _failures(report) == {"wasm-q4": None, "wasm-sleeps": "interrupted"}
    wait_until(lambda: left_behind(temporary) == before, seconds=30)


def test_measuring_leaves_signal_handlers_alone(tmp_path: Path) -> None:
    def handler(*_: object) -> None: ...

    write_bundle(tmp_path, ("wasm-refuses",))
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        measure(tmp_path, options=Options(page=FAKE_PAGE))
        assert [signal.getsignal(number) for number in numbers] == [handler, handler]
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_run_leaves_nothing(sent: signal.Signals, temporary: Path) -> None:
    before = left_behind(temporary)
    run = subprocess.Popen(
        [sys.executable, "-c", HANGING],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    assert run.stdout is not None
    with run.stdout:
        profile = Path(run.stdout.readline().strip())
    assert profile.is_dir()
    assert find_processes(profile)
    run.send_signal(sent)
    run.wait(30)
    wait_until(lambda: left_behind(temporary) == before, seconds=30)
    assert not profile.exists()


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """The reaper of a killed run works on its own; it is given time, not trust."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
