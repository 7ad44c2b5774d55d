"""Faults of a whole run: what was measured before them is kept, or the command says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from browser_harness import flags, launch
from browser_harness import measure as measuring
from browser_harness.adapters import AdapterMissing
from browser_harness.measure import measure
from browser_harness.plan import Options
from manifests.bundle import read_manifest
from manifests.errors import BadDocument
from tests.browser.conftest import FAKE_PAGE
from tests.browser.fake_bundle import write_bundle
from tests.faults import simulator
from tests.faults.catalogue import CPU, NONE, SHARD, Fault
from tests.faults.leftovers import listens
from tests.faults.runner import BRIEF, Case, run
from tests.faults.simulator import Simulator, Wrong

pytestmark = [pytest.mark.browser, pytest.mark.usefixtures("nothing_left")]

FAKE = Options(page=FAKE_PAGE, threads=1, plans={"full": BRIEF, "software": BRIEF})


def test_a_server_that_stops_leaves_what_was_measured(
    bundle: Path, tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports: list[int] = []
    die = Simulator.die

    def noted(server: Simulator) -> None:
        ports.append(server.port)
        die(server)

    monkeypatch.setattr(Simulator, "die", noted)
    dies = Fault("network", wrong=Wrong(SHARD, then=simulator.dies))
    cases = [Case(name, CPU, fault) for name, fault in (("1", NONE), ("2", dies), ("3", NONE))]
    endings = run(bundle, cases, tmp_path, temporary)
    failures = {name: ending.report.failure for name, ending in endings.items()}
    codes = {name: failure.code if failure else None for name, failure in failures.items()}
    assert codes == {"1": None, "2": "network", "3": None}
    assert not listens(*ports)


def test_software_where_hardware_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A browser that is asked for hardware answers with software where there is none.
    pretended = {**flags.ADAPTER_FLAGS, "hardware": flags.ADAPTER_FLAGS["software"]}
    monkeypatch.setattr(flags, "ADAPTER_FLAGS", pretended)
    write_bundle(tmp_path, ("webgpu-q4",))
    with pytest.raises(AdapterMissing, match="hardware") as caught:
        measure(tmp_path, options=replace(FAKE, adapter="hardware"))
    assert (caught.value.code, caught.value.exit_status) == ("adapter-missing", 4)


def test_what_needs_no_hardware_is_measured_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretended = {**flags.ADAPTER_FLAGS, "hardware": flags.ADAPTER_FLAGS["software"]}
    monkeypatch.setattr(flags, "ADAPTER_FLAGS", pretended)
    write_bundle(tmp_path, ("webgpu-q4", "wasm-q4"))
    targets = measure(tmp_path, options=replace(FAKE, adapter="hardware")).targets
    assert targets["wasm-q4"].failure is None
    failure = targets["webgpu-q4"].failure
    assert failure is not None
    assert failure.code == "adapter-missing"


def test_hardware_that_is_gone_when_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def settled(*_: object, **__: object) -> str:
        return "hardware"

    monkeypatch.setattr(measuring, "settle", settled)
    write_bundle(tmp_path, ("wasm-q4", "webgpu-emulated"))
    report = measure(tmp_path, options=replace(FAKE, adapter="hardware"))
    failure = report.targets["webgpu-emulated"].failure
    assert failure is not None
    assert failure.code == "adapter-missing"
    assert report.targets["wasm-q4"].failure is None


def test_a_browser_that_hangs_when_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = tmp_path / "chromium"
    hangs.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Chromium 1 && exit\nexec sleep 600\n')
    hangs.chmod(0o755)
    monkeypatch.setattr(launch, "_LAUNCH_SECONDS", 1.0)
    write_bundle(tmp_path, ("wasm-q4",))
    report = measure(tmp_path, options=replace(FAKE, browser=hangs))
    failure = report.targets["wasm-q4"].failure
    assert failure is not None
    assert failure.code == "browser-failed"


def test_an_old_bundle_is_refused_before_a_browser_starts(tmp_path: Path) -> None:
    write_bundle(tmp_path, ("wasm-q4",))
    manifest = tmp_path / "manifest.json"
    manifest.write_text(
        manifest.read_text("utf-8").replace('"version": 1', '"version": 0'), "utf-8"
    )
    with pytest.raises(BadDocument, match="version"):
        read_manifest(tmp_path)
    with pytest.raises(BadDocument, match="version"):
        measure(tmp_path, options=FAKE)
