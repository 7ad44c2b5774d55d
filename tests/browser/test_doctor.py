"""What the doctor finds, and what it advises where something is missing."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from browser_harness import doctor
from browser_harness.adapters import PROBE_PAGE, AdapterMissing, Probe, has_kind, resolve_adapter
from browser_harness.browsers import BrowserMissing
from browser_harness.flags import AdapterKind
from browser_harness.launch import driver
from browser_harness.tab import BrowserDied
from manifests.doctor import Doctor
from manifests.page import Adapter


def adapter(*, is_fallback: bool) -> Adapter:
    return Adapter(
        vendor="v",
        architecture="a",
        device="d",
        description="An adapter",
        is_fallback=is_fallback,
        features=("shader-f16",),
        device_features=(),
        limits={"maxStorageBufferBindingSize": 1 << 30},
    )


def found(*, software: bool, is_fallback: bool) -> Probe:
    return Probe(
        adapter=adapter(is_fallback=is_fallback),
        software=software,
        jspi=True,
        cross_origin_isolated=True,
    )


NOTHING = Probe(software=False, jspi=True, cross_origin_isolated=True)


def test_a_software_adapter_is_never_taken_for_hardware() -> None:
    # llvmpipe is no fallback adapter to WebGPU, and a CPU all the same.
    for is_fallback in (True, False):
        assert has_kind(found(software=True, is_fallback=is_fallback), "software")
        assert not has_kind(found(software=True, is_fallback=is_fallback), "hardware")
    assert has_kind(found(software=False, is_fallback=False), "hardware")
    assert not has_kind(found(software=False, is_fallback=False), "software")
    assert not has_kind(NOTHING, "software")


def test_the_probe_and_the_runtime_call_the_same_adapters_software() -> None:
    rule = re.compile(r"isFallbackAdapter \|\| (/[^/]+/i)\.test\(names\)")
    (probe,) = rule.findall((PROBE_PAGE / "probe.js").read_text("utf-8"))
    runtime = PROBE_PAGE.parent / "page/runtime/device.ts"
    assert rule.findall(runtime.read_text("utf-8")) == [probe]
    assert all(re.search(name, probe) for name in ("swiftshader", "llvmpipe", "lavapipe"))


@pytest.mark.browser
@pytest.mark.usefixtures("nothing_left")
def test_examine_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    # torch in a process of its own takes seconds, and says nothing about browsers.
    monkeypatch.setattr(doctor, "_ask_torch", lambda: None)
    found = doctor.examine()
    assert found.browser is not None
    assert found.software_adapter is not None
    assert found.software_adapter.limits["maxBufferSize"] >= 1 << 28
    assert found.cross_origin_isolated
    assert "torch" in {advice.missing for advice in found.advice}
    assert Doctor.model_validate_json(found.to_json()) == found
    assert "software adapter" in doctor.render(found)


@pytest.mark.browser
@pytest.mark.usefixtures("nothing_left")
def test_adapter_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: object) -> Probe:
        return NOTHING

    async def work() -> None:
        async with driver() as playwright:
            kind = await resolve_adapter(playwright, "software", executable=None)
            assert kind == "software"
            monkeypatch.setattr("browser_harness.adapters.probe", nothing)
            auto = await resolve_adapter(playwright, "auto", executable=None)
            assert auto == "none"
            with pytest.raises(AdapterMissing, match="no hardware"):
                await resolve_adapter(playwright, "hardware", executable=None)

    asyncio.run(work())


def test_no_browser_is_advice_and_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(_: object) -> None:
        raise BrowserMissing("none here")

    monkeypatch.setattr(doctor, "_find", missing)
    monkeypatch.setattr(doctor, "_ask_torch", lambda: None)
    monkeypatch.setattr(doctor, "_tool_version", lambda _: None)
    found = doctor.examine()
    assert found.browser is None
    assert {advice.missing for advice in found.advice} == {
        "browser",
        "torch",
        "Node.js with npm",
    }
    assert "playwright install chromium" in doctor.render(found)


@pytest.mark.browser
@pytest.mark.usefixtures("nothing_left")
def test_a_browser_that_does_not_start_is_advice_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "chromium"
    broken.write_text('#!/bin/sh\n[ "$1" = --version ] && echo Chromium 1 && exit 0\nexit 3\n')
    broken.chmod(0o755)
    monkeypatch.setenv("TABWRIGHT_BROWSER", str(broken))
    monkeypatch.setattr(doctor, "_ask_torch", lambda: None)
    found = doctor.examine()
    assert found.browser is not None
    assert found.jspi is None
    told = {advice.missing: advice for advice in found.advice}
    for kind in ("hardware", "software"):
        advice = told[f"a browser that starts for a {kind} adapter"]
        assert "browser-failed" in advice.purpose
        assert str(broken) in advice.commands[0]


@pytest.mark.browser
@pytest.mark.usefixtures("nothing_left")
def test_a_browser_that_hardware_flags_break_has_no_hardware_adapter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    async def dies_first(_: object) -> Probe:
        asked.append("asked")
        if len(asked) == 1:
            raise BrowserDied("looking for a WebGPU adapter")
        return found(software=True, is_fallback=True)

    async def work() -> AdapterKind:
        async with driver() as playwright:
            return await resolve_adapter(playwright, "auto", executable=None)

    monkeypatch.setattr("browser_harness.adapters.probe", dies_first)
    assert asyncio.run(work()) == "software"
