"""Find out what this machine can do, by trying it."""

from __future__ import annotations

import asyncio
import json
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from playwright.async_api import Playwright

from browser_harness.adapters import Probe, has_kind, probe
from browser_harness.browsers import (
    INSTALL_COMMANDS,
    BrowserMissing,
    FoundBrowser,
    browser_version,
    find_browser,
)
from browser_harness.flags import AdapterKind
from browser_harness.launch import driver, launch
from browser_harness.machine import describe_machine
from manifests.doctor import Advice, Cuda, Doctor, InstalledBrowser
from manifests.errors import EnvironmentProblem
from manifests.page import Adapter
from manifests.progress import Progress, silent

_TOOL_SECONDS = 30
_TORCH_SECONDS = 120

#: Asked of another process: torch takes seconds and hundreds of megabytes to import.
_ASK_TORCH = """
import json, torch
count = torch.cuda.device_count()
names = [torch.cuda.get_device_name(index) for index in range(count)]
print(json.dumps({"torch": torch.__version__, "devices": names}))
"""

_PROBED: tuple[AdapterKind, ...] = ("hardware", "software")


def examine(progress: Progress = silent) -> Doctor:
    """Look for a browser, start it for each kind of adapter, and ask the tools.

    What is missing is told in ``advice``, not raised.

    A browser that does not start, or dies of being asked, is told there too.
    """
    steps = len(_PROBED) + 2
    progress("examine", 0, steps)
    broken: list[Advice] = []
    browser, probes = asyncio.run(_look_at_browser(progress, steps, broken))
    findings = Doctor(
        machine=describe_machine(),
        browser=browser,
        hardware_adapter=_adapter(probes, "hardware"),
        software_adapter=_adapter(probes, "software"),
        jspi=any(found.jspi for found in probes.values()) if probes else None,
        cross_origin_isolated=(
            all(found.cross_origin_isolated for found in probes.values()) if probes else None
        ),
        cuda=_ask_torch(),
        node=_tool_version("node"),
        npm=_tool_version("npm"),
        python=platform.python_version(),
    )
    progress("examine", steps, steps)
    return findings.model_copy(update={"advice": (*broken, *_advise(findings))})


async def _look_at_browser(
    progress: Progress, steps: int, broken: list[Advice]
) -> tuple[InstalledBrowser | None, dict[AdapterKind, Probe]]:
    probes: dict[AdapterKind, Probe] = {}
    async with driver() as playwright:
        try:
            found = _find(playwright)
            version = await asyncio.to_thread(browser_version, found.executable)
        except BrowserMissing:
            return None, probes
        for done, kind in enumerate(_PROBED, start=1):
            progress("examine", done, steps)
            try:
                async with launch(playwright, executable=found.executable, adapter=kind) as session:
                    probes[kind] = await probe(session)
            except EnvironmentProblem as error:
                broken.append(_broken(found, kind, error))
    installed = InstalledBrowser(
        name=found.name, version=version, executable=str(found.executable), origin=found.origin
    )
    return installed, probes


def _broken(found: FoundBrowser, kind: AdapterKind, error: EnvironmentProblem) -> Advice:
    return Advice(
        missing=f"a browser that starts for a {kind} adapter",
        purpose=f"measuring; {error.code}: {error}",
        commands=(f"{found.executable} --headless --dump-dom about:blank",),
    )


def _find(playwright: Playwright) -> FoundBrowser:
    return find_browser(bundled=Path(playwright.chromium.executable_path))


def _adapter(probes: dict[AdapterKind, Probe], kind: AdapterKind) -> Adapter | None:
    found = probes.get(kind)
    return found.adapter if found is not None and has_kind(found, kind) else None


def _ask_torch() -> Cuda | None:
    answer = _output([sys.executable, "-c", _ASK_TORCH], _TORCH_SECONDS)
    return None if answer is None else Cuda.model_validate(json.loads(answer))


def _tool_version(name: str) -> str | None:
    path = shutil.which(name)
    return None if path is None else _output([path, "--version"], _TOOL_SECONDS)


def _output(command: list[str], seconds: int) -> str | None:
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=seconds, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip()


#: What to say about each thing that can be missing, and how to tell that it is.
_WANTED: tuple[tuple[Callable[[Doctor], bool], Advice], ...] = (
    (
        lambda found: found.browser is None,
        Advice(missing="browser", purpose="measuring", commands=INSTALL_COMMANDS),
    ),
    (
        lambda found: found.browser is not None and found.hardware_adapter is None,
        Advice(
            missing="hardware WebGPU adapter",
            purpose="judging the speed of webgpu targets; the software adapter proves "
            "correctness only",
            commands=("vulkaninfo --summary",),
        ),
    ),
    (
        lambda found: found.jspi is False,
        Advice(
            missing="JSPI in the browser",
            purpose="running any target: Chromium 137 or newer has it",
            commands=INSTALL_COMMANDS,
        ),
    ),
    (
        lambda found: found.cuda is None,
        Advice(missing="torch", purpose="references", commands=("pip install torch",)),
    ),
    (
        lambda found: found.node is None or found.npm is None,
        Advice(
            missing="Node.js with npm",
            purpose="building the page from a source tree",
            commands=("sudo apt-get install nodejs npm",),
        ),
    ),
)


def _advise(found: Doctor) -> Iterator[Advice]:
    return (advice for is_missing, advice in _WANTED if is_missing(found))


def render(found: Doctor) -> str:
    """The examination as lines for a terminal."""
    rows = [
        ("machine", f"{found.machine.cpu}, {found.machine.cores} cores"),
        ("memory", f"{found.machine.memory_bytes / 2**30:.1f} GiB"),
        ("system", found.machine.system),
        ("python", found.python),
        ("node, npm", f"{found.node or 'not found'}, {found.npm or 'not found'}"),
        ("torch", _cuda_line(found.cuda)),
        ("browser", _browser_line(found.browser)),
        ("hardware adapter", _adapter_line(found.hardware_adapter)),
        ("software adapter", _adapter_line(found.software_adapter)),
        ("JSPI", _yes_no(found.jspi)),
        ("isolated for threads", _yes_no(found.cross_origin_isolated)),
    ]
    lines = [f"{name:<21} {value}" for name, value in rows]
    for advice in found.advice:
        ways = " or ".join(f"'{command}'" for command in advice.commands)
        lines.append(f"missing: {advice.missing} (for {advice.purpose}): {ways}")
    return "\n".join(lines)


def _yes_no(value: bool | None) -> str:
    return {None: "unknown", True: "yes", False: "no"}[value]


def _cuda_line(cuda: Cuda | None) -> str:
    if cuda is None:
        return "not found"
    return f"{cuda.torch}, CUDA: {', '.join(cuda.devices) or 'no device'}"


def _browser_line(browser: InstalledBrowser | None) -> str:
    if browser is None:
        return "not found"
    return f"{browser.name} {browser.version} at {browser.executable} ({browser.origin})"


def _adapter_line(adapter: Adapter | None) -> str:
    if adapter is None:
        return "not found"
    name = adapter.description or f"{adapter.vendor} {adapter.architecture}".strip()
    f16 = "with" if "shader-f16" in adapter.features else "without"
    largest = adapter.limits.get("maxStorageBufferBindingSize", 0) / 2**20
    return f"{name}, {f16} shader-f16, bindings up to {largest:.0f} MiB"
