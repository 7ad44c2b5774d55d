"""A measurement in a process of its own, to be stopped at any moment."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.browser.conftest import FAKE_PAGE

MEASURING = """
import functools, sys
from pathlib import Path

import browser_harness.plan
import tabwright

browser_harness.plan.Options = functools.partial(
    browser_harness.plan.Options, page=Path(sys.argv[1])
)
sys.exit(tabwright.call(["measure", sys.argv[2], "-o", sys.argv[3]]))
"""


@contextmanager
def measuring(bundle: Path, report: Path) -> Iterator[subprocess.Popen[str]]:
    """``tabwright measure`` of a bundle for the fake page, leading a group of its own."""
    # What a shell started with & has SIGINT ignored, and so would its children; a handler
    # becomes the default in them.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = subprocess.Popen(
            [sys.executable, "-c", MEASURING, str(FAKE_PAGE), str(bundle), str(report)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)
    with run:
        try:
            yield run
        finally:
            if run.poll() is None:
                run.kill()
