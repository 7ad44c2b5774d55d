"""Which browser to drive: the one that was named, or the first that is found."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from manifests.errors import EnvironmentProblem

BROWSER_VARIABLE = "TABWRIGHT_BROWSER"

INSTALL_COMMANDS = (
    "playwright install chromium",
    "sudo apt-get install chromium",
)

#: In order of trust.  The wrapper scripts that distributions put on the PATH start
#: the real binary as a child and add flags of their own, so the binary comes first.
SYSTEM_BROWSERS: tuple[tuple[str, str], ...] = (
    ("Google Chrome", "/opt/google/chrome/chrome"),
    ("Google Chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
    ("Chromium", "/usr/lib/chromium/chromium"),
    ("Chromium", "/usr/lib64/chromium-browser/chromium-browser"),
    ("Chromium", "/snap/chromium/current/usr/lib/chromium-browser/chrome"),
    ("Chromium", "/Applications/Chromium.app/Contents/MacOS/Chromium"),
    ("Google Chrome", "google-chrome"),
    ("Chromium", "chromium"),
    ("Chromium", "chromium-browser"),
)

_VERSION_SECONDS = 20
_VERSION = re.compile(r"\d+(?:\.\d+)*")


class BrowserMissing(EnvironmentProblem):
    """No browser was found, or the one that was named cannot be run."""

    code = "browser-missing"

    def __init__(self, sentence: str) -> None:
        super().__init__(
            sentence,
            f"install one with '{INSTALL_COMMANDS[0]}' or '{INSTALL_COMMANDS[1]}', "
            f"or name one with --browser or {BROWSER_VARIABLE}",
        )


@dataclass(frozen=True)
class FoundBrowser:
    """A browser that can be started; ``origin`` says why this one was taken."""

    name: str
    executable: Path
    origin: str


def _runnable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)


def find_browser(
    named: Path | None = None,
    bundled: Path | None = None,
    *,
    environment: Mapping[str, str] = os.environ,
    system: tuple[tuple[str, str], ...] = SYSTEM_BROWSERS,
) -> FoundBrowser:
    """Find a Chromium.

    Args:
        named: the one that the user asked for; no other is taken then.
        bundled: where Playwright keeps its own, installed or not.
        environment: where ``TABWRIGHT_BROWSER`` is looked up.
        system: names and paths, or commands on the PATH, in order of preference.

    Raises:
        BrowserMissing: the named one cannot be run, or none is installed.
    """
    variable = environment.get(BROWSER_VARIABLE)
    for asked, origin in ((named, "named"), (variable, BROWSER_VARIABLE)):
        if not asked:
            continue
        path = Path(asked)
        if not _runnable(path):
            raise BrowserMissing(f"{path}: not an executable file ({origin} browser)")
        return FoundBrowser(path.name, path, origin)
    if bundled is not None and _runnable(bundled):
        return FoundBrowser("Chromium", bundled, "Playwright")
    for name, candidate in system:
        found = shutil.which(candidate, path=environment.get("PATH"))
        if found is not None:
            return FoundBrowser(name, Path(found), "system")
    raise BrowserMissing("no Chromium or Google Chrome was found on this machine")


def browser_version(executable: Path) -> str:
    """The version in what ``executable --version`` says, e.g. ``156.0.8078.79``.

    Raises:
        BrowserMissing: it does not run, or says nothing of the kind.
    """
    try:
        answer = subprocess.run(
            [executable, "--version"],
            capture_output=True,
            text=True,
            timeout=_VERSION_SECONDS,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise BrowserMissing(f"{executable}: does not tell its version: {error}") from None
    version = _VERSION.search(answer.stdout)
    if version is None:
        raise BrowserMissing(f"{executable}: does not tell its version: {answer.stdout.strip()!r}")
    return version.group()
