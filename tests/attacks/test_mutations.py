"""Ten thousand mutants of every kind of input: each is read, or refused with its code."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import TabwrightError
from tests.attacks import tiny
from tests.attacks.documents import WHOLE
from tests.attacks.fuzz import run
from tests.attacks.kinds import EXPORTS, KINDS, Kind
from tests.attacks.walk import Shapes

INPUTS = 10_000
#: Of each kind that is exported whole.
EXPORT_INPUTS = 25


def test_mutants_are_read_or_refused(tmp_path: Path) -> None:
    each = -(-INPUTS // len(KINDS))
    summary = run(KINDS, 20, tmp_path, rounds=each, seconds=None)
    assert summary.findings == []
    assert summary.inputs == each * len(KINDS)
    shares = {kind: summary.refused(kind) for kind in KINDS}
    harmless = {kind for kind, share in shares.items() if share < KINDS[kind].floor}
    assert harmless == set(), f"mutation has come to miss what is read: {shares}"


def test_mutants_are_exported_or_refused(tmp_path: Path) -> None:
    rounds = EXPORT_INPUTS * max(kind.every for kind in EXPORTS.values())
    summary = run(EXPORTS, 20, tmp_path, rounds=rounds, seconds=None)
    assert summary.findings == []
    assert summary.inputs == EXPORT_INPUTS * len(EXPORTS)


def _raise() -> None:
    raise KeyError("model_type")


def _warn() -> None:
    np.square(np.float32(3e38))


def _hang() -> None:
    while True:
        pass


def _hoard() -> None:
    np.ones(600 << 20, np.uint8)


def _overreach() -> None:
    np.ones(1 << 36, np.uint8)


def _steer() -> None:
    raise type("Told", (TabwrightError,), {"__str__": lambda _: "\x1b[2J"})("")


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _misbehave(act: Callable[[], None], folder: Path, shapes: Shapes) -> None:
    """``act`` on every input but the valid one."""
    del shapes
    if (folder / "config.json").read_bytes() != tiny.plain()["config.json"]:
        act()


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (_raise, "KeyError: 'model_type'"),
        (_warn, "RuntimeWarning: overflow"),
        (_hang, "took more than 2.0 s"),
        (_hoard, "MiB above the start"),
        (_overreach, "MemoryError"),
        (_steer, "the sentence would drive the user's terminal"),
        (_die, "died"),
    ],
)
def test_what_must_not_be_is_told_and_kept(
    act: Callable[[], None], told: str, tmp_path: Path
) -> None:
    kind = Kind(tiny.plain, "config.json", WHOLE, read=partial(_misbehave, act))
    summary = run({"a kind": kind}, 1, tmp_path, rounds=1, seconds=None)
    assert len(summary.findings) == 1
    kept = tmp_path / "000 a kind"
    assert told in (kept / "finding.txt").read_text()
    assert (kept / "config.json").read_bytes() != tiny.plain()["config.json"]
