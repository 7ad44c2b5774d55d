"""Two targets in turns, on a page that takes the same time whenever it is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from browser_harness import beside
from browser_harness.beside import add_beside
from browser_harness.commands import measure_bundle
from browser_harness.judge.paired import time_ratio
from browser_harness.measure import TargetAbsent, measure
from browser_harness.plan import PLANS, Options
from manifests.errors import NotFound
from manifests.report import Report
from tests.browser.conftest import FAKE_PAGE
from tests.browser.fake_bundle import write_bundle

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]
PLAN = replace(PLANS["full"], warm_loads=2, decode_tokens=16, load_seconds=15.0)
OPTIONS = Options(page=FAKE_PAGE, adapter="software", threads=1, plans={**PLANS, "full": PLAN})


def test_two_targets_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "NOISE_PAIRS", 2)
    monkeypatch.setattr(beside, "LEAST_PAIRS", 3)
    monkeypatch.setattr(beside, "PAIR_SECONDS", 0.0)
    bundle = tmp_path / "bundle"
    write_bundle(bundle, ("wasm-slow", "wasm-q4"))
    report = measure(bundle, targets=("wasm-slow",), options=OPTIONS)
    said: set[str] = set()
    compared = add_beside(
        report, bundle, bundle, "wasm-q4", OPTIONS, lambda phase, *_: said.add(phase)
    )
    found = compared.targets["wasm-slow"].beside
    assert found is not None
    assert (len(found.noise), len(found.pairs)) == (2, 3)
    assert said == {"wasm-q4 in turns with itself", "wasm-slow in turns with bundle"}
    assert [pair.first for pair in found.pairs] == ["old", "old", "new"]
    assert {len(runs) for pair in found.pairs for runs in (pair.old, pair.new)} == {6}
    noise, ratio = time_ratio(found.noise), time_ratio(found.pairs)
    assert noise is not None
    assert ratio is not None
    assert noise.value == pytest.approx(1)
    # 2.2 ms a token beside 2.
    assert ratio.value == pytest.approx(1.1)


@pytest.mark.parametrize(
    ("other", "code"),
    [
        ("wasm-refuses", "chunk-corrupt"),
        # The only adapter is an emulation, whose speed is nobody's.
        ("webgpu-emulated", "adapter-missing"),
    ],
)
def test_turns_that_fail_are_told_and_leave_the_report(
    other: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beside, "NOISE_PAIRS", 1)
    bundle = tmp_path / "bundle"
    write_bundle(bundle, ("wasm-q4", other))
    report = measure(bundle, targets=("wasm-q4",), options=OPTIONS)
    kept: list[Report] = []
    compared = add_beside(report, bundle, bundle, other, OPTIONS, lambda *_: None, keep=kept.append)
    found = compared.targets["wasm-q4"]
    assert found.beside is None
    assert found.beside_failure is not None
    assert found.beside_failure.code == code
    assert found.model_copy(update={"beside_failure": None}) == report.targets["wasm-q4"]
    assert kept == [compared]


def test_what_cannot_be_compared_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    bundle, other = tmp_path / "bundle", tmp_path / "other"
    write_bundle(bundle, ("wasm-q4",))
    write_bundle(other, ("wasm-noisy",))
    with pytest.raises(TargetAbsent, match="wasm-q4"):
        _measure_beside(bundle, other, tmp_path)
    with pytest.raises(NotFound):
        _measure_beside(bundle, tmp_path / "nowhere", tmp_path)


def _measure_beside(bundle: Path, other: Path, folder: Path) -> None:
    measure_bundle(
        bundle,
        None,
        (),
        folder / "report.json",
        adapter="software",
        threads=1,
        browser=folder / "none",
        beside=other,
        progress=lambda *_: None,
    )
