"""Two targets in turns, on a page that takes the same time whenever it is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from browser_harness import beside
from browser_harness.beside import add_beside
from browser_harness.judge.paired import time_ratio
from browser_harness.measure import TargetAbsent, measure
from browser_harness.plan import PLANS, Options
from tests.browser.conftest import FAKE_PAGE
from tests.browser.fake_bundle import write_bundle
from tests.unit.reports import healthy_report

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


def test_a_target_that_the_other_bundle_lacks_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_bundle(other, ("wasm-noisy",))
    with pytest.raises(TargetAbsent, match="wasm-q4"):
        add_beside(healthy_report(), tmp_path, other, None, OPTIONS, lambda *_: None)
