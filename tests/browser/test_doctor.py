"""What the doctor finds, and what it advises where something is missing."""

from __future__ import annotations

import asyncio

import pytest

from browser_harness import doctor
from browser_harness.adapters import AdapterMissing, Probe, has_kind, resolve_adapter
from browser_harness.browsers import BrowserMissing
from browser_harness.launch import driver
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


def test_a_software_adapter_is_never_taken_for_hardware() -> None:
    found = Probe(adapter=adapter(is_fallback=True), jspi=True, cross_origin_isolated=True)
    assert has_kind(found, "software")
    assert not has_kind(found, "hardware")
    found = Probe(adapter=adapter(is_fallback=False), jspi=True, cross_origin_isolated=True)
    assert has_kind(found, "hardware")
    assert not has_kind(found, "software")
    assert not has_kind(Probe(jspi=True, cross_origin_isolated=True), "software")


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
        return Probe(jspi=True, cross_origin_isolated=True)

    async def work() -> None:
        async with driver() as playwright:
            kind = await resolve_adapter(playwright, "software", executable=None, headless=True)
            assert kind == "software"
            monkeypatch.setattr("browser_harness.adapters.probe", nothing)
            auto = await resolve_adapter(playwright, "auto", executable=None, headless=True)
            assert auto == "none"
            with pytest.raises(AdapterMissing, match="no hardware"):
                await resolve_adapter(playwright, "hardware", executable=None, headless=True)

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
