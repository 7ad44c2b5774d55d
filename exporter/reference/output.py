"""Where a reference is written: one JSON file, and its logits beside it."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

from safetensors.numpy import save_file

from exporter.reference.answers import Logits
from exporter.reference.errors import ReferenceMisplaced
from manifests.reference import Reference

_SUFFIX = ".json"


def logits_path(out: Path) -> Path:
    """Where the logits of the reference at ``out`` are."""
    return out.with_suffix(".safetensors")


def check_output(out: Path) -> None:
    """Refuse a path where something but an older reference would give way.

    Raises:
        ReferenceMisplaced: says what.
    """
    # Of two names that differ in their suffix alone, the logits would be one file.
    if out.suffix != _SUFFIX:
        raise ReferenceMisplaced(out, f"its name does not end in {_SUFFIX}")
    logits, older = logits_path(out), _older_logits(out)
    if older is None and out.exists():
        raise ReferenceMisplaced(out, "what is there is no reference")
    if older != logits.name and logits.exists():
        raise ReferenceMisplaced(out, f"{logits.name}, where its logits go, is something else")


def _older_logits(out: Path) -> str | None:
    """The name of the logits of a reference at ``out``, whatever version wrote it."""
    try:
        document = json.loads(out.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    match document:
        case {"format": "tabwright-reference", "logits_file": str(name)}:
            return name
    return None


def write_reference(reference: Reference, logits: Logits, out: Path) -> Reference:
    """Write both files; the logits' digest goes into the reference, which comes last.

    Raises:
        ReferenceMisplaced: see :func:`check_output`.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".reference-", dir=out.parent) as folder:
        staged = Path(folder) / "logits"
        save_file(logits, staged)
        whole = reference.model_copy(update={"logits_sha256": _sha256(staged)})
        document = Path(folder) / "reference"
        document.write_text(whole.to_json(), "utf-8")
        # safetensors makes its files private; both are meant to travel.
        staged.chmod(document.stat().st_mode)
        check_output(out)
        # Between the two renames there is no reference rather than one of other logits.
        out.unlink(missing_ok=True)
        staged.replace(out.with_name(whole.logits_file))
        document.replace(out)
    return whole


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
