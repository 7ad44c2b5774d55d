"""What a checkpoint or a bundle is, told to a person or a script."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from exporter.checkpoint import Checkpoint
from manifests.base import Schema
from manifests.bundle import Manifest, Tensor


class SchemeSummary(Schema):
    """The weights that are kept in one way."""

    scheme: str
    tensors: int
    parameters: int


class CheckpointSummary(Schema):
    """A checkpoint before anything is done to it."""

    path: str
    format: str
    architecture: str
    model_type: str
    parameters: int
    bytes: int
    schemes: tuple[SchemeSummary, ...]


def summarise(checkpoint: Checkpoint) -> CheckpointSummary:
    """Count an opened checkpoint's weights by scheme; reads no weight."""
    tensors: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for weight in checkpoint.weights.values():
        tensors[weight.scheme] += 1
        parameters[weight.scheme] += math.prod(weight.shape)
    return CheckpointSummary(
        path=str(checkpoint.path),
        format=checkpoint.format,
        architecture=next(iter(checkpoint.config.get("architectures") or ["unnamed"])),
        model_type=checkpoint.config["model_type"],
        parameters=parameters.total(),
        bytes=sum(path.stat().st_size for path in checkpoint.weight_files),
        schemes=tuple(
            SchemeSummary(scheme=scheme, tensors=count, parameters=parameters[scheme])
            for scheme, count in tensors.most_common()
        ),
    )


def checkpoint_view(summary: CheckpointSummary) -> RenderableType:
    """The summary as a table by scheme."""
    title = (
        f"{summary.path}: {summary.format} checkpoint, {summary.architecture}, "
        f"{summary.parameters:,} parameters, {decimal(summary.bytes)} of weights"
    )
    rows = [(s.scheme, f"{s.tensors:,}", f"{s.parameters:,}") for s in summary.schemes]
    return Group(Text(title), _table(("kept as", "tensors", "parameters"), rows, right={1, 2}))


def bundle_view(manifest: Manifest, *, ledger: bool) -> RenderableType:
    """The bundle's targets and what became of its tensors; each of them with ``ledger``."""
    model = manifest.model
    size = sum(file.size for file in manifest.files)
    title = (
        f"{model.name}: bundle of {model.architecture}, {model.parameters:,} parameters, "
        f"{len(manifest.files)} files, {decimal(size)}, from {manifest.source.format}"
    )
    targets = [
        (
            name,
            entry.execution_provider,
            entry.activation_dtype,
            entry.weights,
            ", ".join(entry.features) or "none",
        )
        for name, entry in sorted(manifest.targets.items())
    ]
    parts: list[RenderableType] = [
        _table(("target", "runs on", "activations", "weights", "features needed"), targets)
    ]
    for name, weights in sorted(manifest.weights.items()):
        parts.append(_ledger(name, weights.tensors) if ledger else _outcomes(name, weights.tensors))
    return Group(Text(title), *parts)


def _outcomes(name: str, tensors: Iterable[Tensor]) -> Table:
    groups: defaultdict[tuple[str, str, str, str], list[Tensor]] = defaultdict(list)
    for tensor in tensors:
        groups[tensor.outcome, tensor.role, tensor.source, _stored(tensor)].append(tensor)
    rows = [
        (role, source, stored, outcome, f"{len(group):,}", _rounding(group))
        for (outcome, role, source, stored), group in sorted(groups.items())
    ]
    head = (f"weights {name}", "source", "stored", "outcome", "tensors", "largest rounding")
    return _table(head, rows, right={4, 5})


def _ledger(name: str, tensors: Iterable[Tensor]) -> Table:
    rows = [
        (
            tensor.name,
            "x".join(map(str, tensor.shape)),
            tensor.source,
            _stored(tensor),
            tensor.outcome,
            _rounding([tensor]),
        )
        for tensor in tensors
    ]
    head = (f"weights {name}", "shape", "source", "stored", "outcome", "rounding (rms)")
    return _table(head, rows, right={5})


def _stored(tensor: Tensor) -> str:
    if tensor.bits is None:
        return tensor.value_dtype or "elsewhere"
    return f"int{tensor.bits} g{tensor.block_size}, {tensor.scale_dtype} scales"


def _rounding(tensors: Iterable[Tensor]) -> str:
    worst = max((t.rounding.rms for t in tensors if t.rounding is not None), default=None)
    return "" if worst is None else f"{worst:.2%}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
