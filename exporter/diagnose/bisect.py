"""Layer by layer, then tensor by tensor: the first that a browser computes differently."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from itertools import dropwhile
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from exporter.checkpoint import open_checkpoint
from exporter.diagnose.errors import NotDiagnosable
from exporter.diagnose.expose import expose_bundle, load_graph
from exporter.diagnose.points import find_points, layers_of
from exporter.reference.errors import CheckpointMismatch
from exporter.reference.model import DeviceChoice, choose_device
from exporter.reference.prompts import tokenise
from exporter.reference.states import LOGITS, carried_model, write_states
from exporter.reference.suite import SUITE, Suite
from manifests.bundle import Manifest, read_manifest
from manifests.diagnosis import Deviation, Diagnosis, Point
from manifests.progress import Progress, silent

Rows = NDArray[np.float32]
#: Runs a target of a bundle over token ids and gives float32 [tokens, width].
Run = Callable[[Path, str, Sequence[int]], Rows]

#: By the target's activations: what addition in another order makes of them over a deep
#: model, with room.  A wrong scale or a wrong kernel is hundreds of times further away.
TOLERANCES: MappingProxyType[str, float] = MappingProxyType({"float32": 1e-3, "float16": 5e-2})
#: Of the suite's first text, tokens that are fed.
_TOKENS = 12


def diagnose(
    bundle: Path,
    checkpoint: Path,
    target: str,
    run: Run,
    *,
    adapter: Path | None = None,
    device: DeviceChoice = "auto",
    tolerance: float | None = None,
    progress: Progress = silent,
) -> Diagnosis:
    """Find the first tensor of ``target`` that ``run`` computes otherwise than PyTorch.

    Args:
        bundle: a bundle that was exported from ``checkpoint``.
        checkpoint: what PyTorch is given.
        target: one of the bundle's targets.
        run: the browser.
        adapter: folder of the PEFT adapter that was merged into the checkpoint.
        device: where PyTorch runs.
        tolerance: relative deviation that is allowed; of :data:`TOLERANCES` by default.
        progress: told of each phase.

    Raises:
        CheckpointMismatch: the bundle was made from another checkpoint.
        FileMissing, FileChanged: the target's graph is not the one that was sealed.
        NotDiagnosable: the checkpoint came with its own graph, or is of unknown modules.
        BadInput, EnvironmentProblem: whatever reading, PyTorch or ``run`` refuse.
    """
    manifest = read_manifest(bundle)
    opened = open_checkpoint(checkpoint, adapter)
    if opened.source(progress).digest != manifest.source.digest:
        raise CheckpointMismatch(checkpoint, bundle)
    if opened.graph is not None:
        raise NotDiagnosable(checkpoint, "its graph was written by another exporter")
    entry = manifest.targets[target]
    weights = manifest.weights[entry.weights]
    graph = load_graph(bundle, manifest, target).graph
    scored = tokenise(checkpoint, Suite.load(SUITE), _TOKENS).scored
    ids = scored[0].ids
    with tempfile.TemporaryDirectory(prefix="tabwright-") as scratch:
        progress("states in PyTorch", 0, 1)
        model, changed = carried_model(opened, bundle, weights, choose_device(device))
        file = Path(scratch) / "states.safetensors"
        points = write_states(model, ids, list(find_points(graph, weights.tensors)), file)
        del model
        progress("states in PyTorch", 1, 1)
        if not points:
            raise NotDiagnosable(checkpoint, "no module of the ledger is among transformers'")
        look = _Look(bundle, manifest, target, run, ids, load_file(file), Path(scratch))
        bar = TOLERANCES[entry.activation_dtype] if tolerance is None else tolerance
        layers = look.at("layers", list(layers_of(points)), progress)
        tensors = look.at("tensors", _between(points, layers, bar), progress)
    # Looking may undo a fusion, and the fault with it: then the layer is all that is known.
    beyond = [each.point for each in (*tensors, *layers) if not each.relative <= bar]
    return Diagnosis(
        target=target,
        loop="plain" if entry.resident_graph is None else "resident",
        tokens=len(ids),
        tolerance=bar,
        layers=layers,
        tensors=tensors,
        first=next(iter(beyond), None),
        changed=changed,
    )


def _between(points: list[Point], layers: Sequence[Deviation], bar: float) -> list[Point]:
    """The points after the last layer that is right, up to the first that is not."""
    wrong = next((at for at, each in enumerate(layers) if not each.relative <= bar), None)
    if wrong is None:
        return []
    until = layers[wrong].point
    end = len(points) if until == LOGITS else points.index(until) + 1
    if wrong == 0:
        return points[:end]
    after = layers[wrong - 1].point
    return list(dropwhile(lambda point: point != after, points[:end]))[1:]


class _Look:
    """One run of the browser per set of points."""

    def __init__(
        self,
        bundle: Path,
        manifest: Manifest,
        target: str,
        run: Run,
        ids: Sequence[int],
        expected: dict[str, Rows],
        scratch: Path,
    ) -> None:
        self._bundle, self._manifest, self._target = bundle, manifest, target
        self._run, self._ids = run, ids
        self._expected, self._scratch = expected, scratch

    def at(self, name: str, points: list[Point], progress: Progress) -> tuple[Deviation, ...]:
        """The deviations at ``points`` and at the logits; none where there are no points."""
        if not points:
            return ()
        progress(f"{name} in the browser", 0, 1)
        whole = [*points, LOGITS]
        widths = [self._expected[str(point)].shape[1] for point in whole]
        out = self._scratch / name
        expose_bundle(self._bundle, self._manifest, self._target, points, sum(widths), out)
        rows = self._run(out, self._target, self._ids)
        assert rows.shape[1] == sum(widths), f"{rows.shape[1]} values a row, not {sum(widths)}"
        columns = np.split(rows, np.cumsum(widths)[:-1], axis=1)
        progress(f"{name} in the browser", 1, 1)
        return tuple(
            _deviation(point, self._expected[str(point)], got)
            for point, got in zip(whole, columns, strict=True)
        )


def _deviation(point: Point, expected: Rows, got: Rows) -> Deviation:
    difference = got.astype(np.float64) - expected
    # By token: the first one's values are often a thousand times as large as the others'.
    size = np.maximum(np.linalg.norm(expected, axis=1), np.finfo(np.float32).tiny)
    return Deviation(
        point=point,
        relative=float((np.linalg.norm(difference, axis=1) / size).max()),
        largest=float(np.abs(difference).max()),
    )
