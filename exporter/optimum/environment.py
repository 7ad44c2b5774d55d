"""The environment that optimum's exporter runs in: made once, found again.

It lies in the user's cache under a key of everything that decides what is in it.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from exporter.cache import cache_folder
from exporter.optimum.errors import OptimumUnavailable
from exporter.optimum.process import TimedOut, run
from manifests.progress import Progress

PINS = Path(__file__).with_name("pins.txt")
_PHASE = "make optimum's environment"
#: torch alone may be gigabytes.
_PIP_SECONDS = 3600.0


def optimum_python(progress: Progress) -> Path:
    """The Python that has optimum, in an environment that is made if it is not there.

    Raises:
        OptimumUnavailable: it cannot be made; nothing of it is left behind.
    """
    key = hashlib.sha256(f"{sys.version}\n{PINS.read_text('utf-8')}".encode()).hexdigest()
    folder = cache_folder() / f"optimum-{key[:12]}"
    if not folder.is_dir():
        _make(folder, progress)
    return folder / "bin" / "python"


def _make(folder: Path, progress: Progress) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Whole or not at all: an environment is usable where it was renamed to, as long as
    # its programs are started by its Python and not by their scripts.
    stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        pip = [str(stage / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
        steps = (
            [sys.executable, "-m", "venv", str(stage)],
            [*pip, "install", "--quiet", "--no-input", "--requirement", str(PINS)],
        )
        for done, command in enumerate(steps):
            progress(_PHASE, done, len(steps))
            status, said = run(command, _PIP_SECONDS)
            if status:
                raise OptimumUnavailable(said or f"exit status {status}")
        if not folder.is_dir():
            stage.rename(folder)
        progress(_PHASE, len(steps), len(steps))
    except TimedOut as error:
        raise OptimumUnavailable(str(error)) from None
    finally:
        shutil.rmtree(stage, ignore_errors=True)
