"""Lets optimum write the ONNX graph of a checkpoint."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.checkpoint import Checkpoint
from exporter.checkpoint.folder import GRAPH, INDEX
from exporter.checkpoint.weights import Stored
from exporter.optimum.environment import optimum_python
from exporter.optimum.errors import OptimumFailed, OptimumReadsFloats
from exporter.optimum.process import TimedOut, run
from manifests.progress import Progress

_PHASE = "export with optimum"
_SECONDS = 3600.0
#: Of ``rope_parameters``, what transformers 4 looks for beside its ``rope_scaling``.
_ROPE = ("rope_theta", "partial_rotary_factor")


@contextmanager
def optimum_graph(checkpoint: Checkpoint, progress: Progress) -> Iterator[Path]:
    """The path of ``checkpoint`` as optimum writes it in float32, for as long as the block runs.

    Raises:
        OptimumReadsFloats: the checkpoint is compressed, adapted, or comes with a graph.
        OptimumUnavailable: its environment cannot be made.
        OptimumFailed: it cannot export the architecture.
    """
    # Not its subclasses: of those, the files hold something else than the values.
    plain = all(type(weight) is Stored for weight in checkpoint.weights.values())
    if checkpoint.graph is not None or not plain or not checkpoint.path.is_dir():
        raise OptimumReadsFloats(checkpoint.path, f"a checkpoint of the format {checkpoint.format}")
    python = optimum_python(progress)
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        source, out = Path(scratch, "checkpoint"), Path(scratch, "out")
        _give(checkpoint, source)
        command = [str(python), "-m", "optimum.exporters.onnx", "--model", str(source)]
        command += ["--task", "text-generation-with-past", "--dtype", "fp32", str(out)]
        progress(_PHASE, 0, 1)
        try:
            status, said = run(command, _SECONDS)
        except TimedOut as error:
            raise OptimumFailed(checkpoint.path, str(error)) from None
        if status or not (out / GRAPH).is_file():
            raise OptimumFailed(checkpoint.path, said or f"exit status {status}")
        progress(_PHASE, 1, 1)
        yield out / GRAPH


def _give(checkpoint: Checkpoint, folder: Path) -> None:
    """Make ``folder`` the checkpoint as transformers 4 expects it, without copying weights."""
    folder.mkdir()
    paths = [*checkpoint.weight_files, checkpoint.path / INDEX]
    for path in paths:
        if path.is_file():
            (folder / path.name).symlink_to(path.resolve())
    (folder / "config.json").write_text(json.dumps(_older(checkpoint.config)))


def _older(config: dict[str, Any]) -> dict[str, Any]:
    """``config.json`` in the words of transformers 4, where it is in those of 5."""
    older = dict(config)
    if "dtype" in older:
        older["torch_dtype"] = older.pop("dtype")
    rope = dict(older.pop("rope_parameters", None) or {})
    older |= {name: rope.pop(name) for name in _ROPE if name in rope}
    if rope.get("rope_type", "default") != "default":
        older["rope_scaling"] = rope
    return older
