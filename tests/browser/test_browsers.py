"""Which browser is taken, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from browser_harness.browsers import (
    BROWSER_VARIABLE,
    BrowserMissing,
    browser_version,
    find_browser,
)
from browser_harness.flags import ADAPTER_FLAGS, flags_for


@pytest.fixture
def programs(tmp_path: Path) -> dict[str, Path]:
    found = {}
    for name in ("named", "variable", "bundled", "chromium"):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\necho {name} 1.2.3\n")
        path.chmod(0o755)
        found[name] = path
    return found


def test_order_of_preference(programs: dict[str, Path]) -> None:
    system = (("Chromium", str(programs["chromium"])),)
    environment = {BROWSER_VARIABLE: str(programs["variable"])}
    find = find_browser(
        programs["named"], programs["bundled"], environment=environment, system=system
    )
    assert find.executable == programs["named"]
    find = find_browser(None, programs["bundled"], environment=environment, system=system)
    assert find.executable == programs["variable"]
    find = find_browser(None, programs["bundled"], environment={}, system=system)
    assert (find.executable, find.origin) == (programs["bundled"], "Playwright")
    find = find_browser(None, Path("/not/installed"), environment={}, system=system)
    assert (find.name, find.executable) == ("Chromium", programs["chromium"])


def test_a_command_is_looked_up_on_the_path(programs: dict[str, Path]) -> None:
    environment = {"PATH": str(programs["chromium"].parent)}
    found = find_browser(environment=environment, system=(("Chromium", "chromium"),))
    assert found.executable == programs["chromium"]


def test_none_found_tells_both_commands() -> None:
    with pytest.raises(BrowserMissing) as caught:
        find_browser(environment={"PATH": ""}, system=(("Chromium", "chromium"),))
    assert (caught.value.code, caught.value.exit_status) == ("browser-missing", 4)
    assert "playwright install chromium" in caught.value.next_step
    assert "apt-get install chromium" in caught.value.next_step


@pytest.mark.parametrize("origin", ["named", BROWSER_VARIABLE])
def test_a_named_browser_is_never_replaced(programs: dict[str, Path], origin: str) -> None:
    absent = programs["named"].parent / "absent"
    with pytest.raises(BrowserMissing, match=f"absent.*{origin}"):
        find_browser(
            absent if origin == "named" else None,
            programs["bundled"],
            environment={origin: str(absent)},
            system=(),
        )


def test_version(programs: dict[str, Path], tmp_path: Path) -> None:
    assert browser_version(programs["chromium"]) == "1.2.3"
    programs["chromium"].write_text("#!/bin/sh\necho Google Chrome 137.0.1 built on Debian 13\n")
    assert browser_version(programs["chromium"]) == "137.0.1"
    programs["chromium"].write_text("#!/bin/sh\necho who knows\n")
    with pytest.raises(BrowserMissing, match="who knows"):
        browser_version(programs["chromium"])
    broken = tmp_path / "broken"
    broken.write_text("not a program")
    broken.chmod(0o755)
    with pytest.raises(BrowserMissing, match="broken"):
        browser_version(broken)


@pytest.mark.parametrize(("root", "expected"), [(True, 1), (False, 0)])
def test_sandbox_is_left_out_for_root_only(
    monkeypatch: pytest.MonkeyPatch, root: bool, expected: int
) -> None:
    monkeypatch.setattr("browser_harness.flags.is_root", lambda: root)
    for adapter in ADAPTER_FLAGS:
        assert flags_for(adapter).count("--no-sandbox") == expected
