"""Every row of every ledger against the checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import isclose, prod, sqrt
from pathlib import Path

import numpy as np

from exporter.checkpoint import open_checkpoint
from exporter.prove.adapter import Adapter
from exporter.prove.errors import LedgerUntrue, NoProof
from exporter.prove.files import Tensors
from exporter.prove.formats import find
from exporter.prove.gguf import GgufTensors
from exporter.prove.graphs import prove_graphs
from exporter.prove.onnx_tensors import OnnxTensors
from exporter.prove.stored import Row
from exporter.prove.values import Codes, Floats, Matrix, floats, turned
from exporter.reference.errors import CheckpointMismatch
from exporter.write.verify import verify_bundle
from manifests.base import Schema
from manifests.bundle import Tensor
from manifests.errors import BadInput
from manifests.progress import Progress, silent

_GGUF, _ONNX = ".gguf", ".onnx"
_READ = frozenset({".safetensors", _GGUF, _ONNX})
#: Values that are compared at a time.
_VALUES = 1 << 20
#: How far a recomputed error may be from the ledger's, as a part of it.
_TOLERANCE = 1e-6


class Proven(Schema):
    """What was compared of one weight set.  Nothing differed: a difference is an error.

    ``codes_compared``: integer codes of exact rows against the checkpoint's own, zero
    points taken off; ``values_compared``: floats of exact rows that are no codes on one
    side.  ``largest_rms`` and ``largest_max`` are the worst recomputed roundings.
    """

    exact: int
    requantised: int
    codes_compared: int
    codes_changed: int
    values_compared: int
    largest_rms: float
    largest_max: float
    zeros_before: int
    zeros_after: int


class Proof(Schema):
    """The ledgers of a bundle that were found true."""

    bundle: str
    checkpoint: str
    source_digest: str
    seal: str
    weights: dict[str, Proven]


@dataclass
class _Counts:
    """Sums over the blocks of one row."""

    codes: int = 0
    values: int = 0
    zeros_before: int = 0
    zeros_after: int = 0
    error_squares: float = 0.0
    source_squares: float = 0.0
    largest_error: float = 0.0
    largest_source: float = 0.0
    two_of_four: bool = True

    @property
    def rms(self) -> float:
        """||stored - source|| / ||source||."""
        return _part(sqrt(self.error_squares), sqrt(self.source_squares))

    @property
    def max(self) -> float:
        """The largest error over the largest value."""
        return _part(self.largest_error, self.largest_source)


def prove(
    bundle: Path, checkpoint: Path, adapter: Path | None = None, progress: Progress = silent
) -> Proof:
    """Hold every ledger of ``bundle`` against the checkpoint that it was made from.

    Raises:
        TabwrightError: the bundle is not whole, or the checkpoint cannot be opened.
        CheckpointMismatch: the bundle was made from another checkpoint, or adapter.
        LedgerUntrue: names the first tensor that is not what its row says, or that a graph
            reads elsewhere.
        NoProof: a format has no second reading.
    """
    manifest = verify_bundle(bundle, progress)
    opened = open_checkpoint(checkpoint, adapter)
    digest = opened.source(progress).digest
    if digest != manifest.source.digest:
        raise CheckpointMismatch(checkpoint, bundle)
    if opened.weight_files[0].suffix not in _READ:
        raise NoProof(checkpoint, f"a {opened.format} checkpoint")
    source = _Source(checkpoint, opened.weight_files, adapter)
    weights: dict[str, Proven] = {}
    for name, stored in sorted(manifest.weights.items()):
        try:
            opened.select({row.name: _source_shape(row) for row in stored.tensors})
        except BadInput as error:
            raise LedgerUntrue(bundle, name, f"the ledger is not whole: {error}") from error
        total = sum(prod(row.shape) for row in stored.tensors)
        done, proven = 0, []
        for row in stored.tensors:
            progress(f"prove {name}", done, total)
            proven.append((row, _prove_row(bundle, row, source.matrix(row))))
            done += prod(row.shape)
        progress(f"prove {name}", total, total)
        prove_graphs(bundle, manifest, name)
        weights[name] = _summarise(proven)
    return Proof(
        bundle=str(bundle),
        checkpoint=str(checkpoint),
        source_digest=digest,
        seal=manifest.seal,
        weights=weights,
    )


class _Source:
    """The checkpoint, and the adapter over it."""

    def __init__(self, path: Path, files: tuple[Path, ...], adapter: Path | None) -> None:
        self._path = path
        self._find = _finder(path, files)
        self._adapter = None if adapter is None else Adapter(adapter)

    def matrix(self, row: Tensor) -> Matrix:
        """The weight that ``row`` is about.

        Raises:
            NoProof: it is kept in a way that is not read here.
        """
        found = self._find(row.name)
        if found is None:
            raise NoProof(self._path, f"tensor {row.name}")
        if row.transposed:
            found = turned(found)
        return found if self._adapter is None else self._adapter.apply(row.name, found)


def _finder(path: Path, files: tuple[Path, ...]) -> Callable[[str], Matrix | None]:
    if files[0].suffix == _GGUF:
        return GgufTensors(files).matrix
    if files[0].suffix == _ONNX:
        return OnnxTensors(files[0]).matrix
    config = json.loads((path / "config.json").read_bytes())
    scheme, tensors = config.get("quantization_config") or {}, Tensors(files)
    return lambda name: find(tensors, name, scheme)


def _source_shape(row: Tensor) -> tuple[int, ...]:
    return row.shape[::-1] if row.transposed else row.shape


def _prove_row(bundle: Path, row: Tensor, source: Matrix) -> _Counts:
    if source.shape != row.shape:
        reason = f"shape {list(row.shape)}, the checkpoint has {list(source.shape)}"
        raise LedgerUntrue(bundle, row.name, reason)
    if (row.outcome == "exact") != (row.rounding is None):
        raise LedgerUntrue(bundle, row.name, "it is either exact or has a rounding")
    reader = Row(bundle, row)
    stored, order = reader.matrix(), reader.order()
    counts = _Counts()
    for start, stop in _blocks(row.shape):
        before, after = source.read(start, stop), stored.read(start, stop)
        if order is not None:
            before = before.columns(order) if isinstance(before, Codes) else before[:, order]
        if row.outcome == "exact":
            _compare(bundle, row, before, after, start, counts)
        _count(floats(before), floats(after), counts)
    if row.rounding is not None:
        _hold(bundle, row, "rms error", row.rounding.rms, counts.rms)
        _hold(bundle, row, "largest error", row.rounding.max, counts.max)
    if row.zeros is not None:
        size = prod(row.shape)
        _hold(bundle, row, "share of zeros", row.zeros.source, counts.zeros_before / size)
        _hold(bundle, row, "share of stored zeros", row.zeros.stored, counts.zeros_after / size)
        if (row.zeros.pattern == "2:4") != counts.two_of_four:
            raise LedgerUntrue(bundle, row.name, f"its zeros' pattern is not {row.zeros.pattern}")
    return counts


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    step = max(1, _VALUES // max(prod(shape[1:]), 1))
    for start in range(0, shape[0], step):
        yield start, min(start + step, shape[0])


def _compare(
    bundle: Path,
    row: Tensor,
    before: Codes | Floats,
    after: Codes | Floats,
    start: int,
    counts: _Counts,
) -> None:
    """Codes and scales where both sides have them; float bits where neither has."""
    if isinstance(before, Codes) and isinstance(after, Codes):
        _same(bundle, row, "codes", before.steps != after.steps, start)
        _same(bundle, row, "scales", before.scales != after.scales, start)
        counts.codes += before.steps.size
        return
    values, stored = floats(before), floats(after)
    if isinstance(before, Codes) or isinstance(after, Codes):
        # Codes have no negative zero.
        _same(bundle, row, "values", values != stored, start)
    else:
        _same(bundle, row, "values", values.view(np.uint32) != stored.view(np.uint32), start)
    counts.values += values.size


def _same(
    bundle: Path,
    row: Tensor,
    what: str,
    differs: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
    start: int,
) -> None:
    if differs.any():
        at = np.argwhere(differs)[0]
        place = [int(at[0]) + start, *(int(n) for n in at[1:])]
        count = int(np.count_nonzero(differs))
        reason = f"called exact, but {count} {what} differ, the first at {place}"
        raise LedgerUntrue(bundle, row.name, reason)


def _count(before: Floats, after: Floats, counts: _Counts) -> None:
    error = after.astype(np.float64) - before
    counts.error_squares += float((error * error).sum())
    counts.source_squares += float((before.astype(np.float64) ** 2).sum())
    counts.largest_error = max(counts.largest_error, float(np.abs(error).max()))
    counts.largest_source = max(counts.largest_source, float(np.abs(before).max()))
    counts.zeros_before += int(np.count_nonzero(before == 0))
    zeros = after == 0
    counts.zeros_after += int(np.count_nonzero(zeros))
    if counts.two_of_four:
        pairs = zeros.shape[-1] % 4 == 0 and zeros.reshape(-1, 4).sum(axis=1).min() >= 2
        counts.two_of_four = bool(pairs)


def _hold(bundle: Path, row: Tensor, what: str, told: float, found: float) -> None:
    if not isclose(told, found, rel_tol=_TOLERANCE):
        raise LedgerUntrue(bundle, row.name, f"{what} is {found:.9g}, the ledger says {told:.9g}")


def _part(part: float, whole: float) -> float:
    if part == 0.0:
        return 0.0
    return part / whole if whole else float("inf")


def _summarise(rows: list[tuple[Tensor, _Counts]]) -> Proven:
    rounded = [counts for row, counts in rows if row.rounding is not None]
    matrices = [counts for row, counts in rows if row.zeros is not None]
    return Proven(
        exact=len(rows) - len(rounded),
        requantised=len(rounded),
        codes_compared=sum(counts.codes for _, counts in rows),
        codes_changed=0,
        values_compared=sum(counts.values for _, counts in rows),
        largest_rms=max((counts.rms for counts in rounded), default=0.0),
        largest_max=max((counts.max for counts in rounded), default=0.0),
        zeros_before=sum(counts.zeros_before for counts in matrices),
        zeros_after=sum(counts.zeros_after for counts in matrices),
    )
