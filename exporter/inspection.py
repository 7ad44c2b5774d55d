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
from exporter.prove import Proof
from exporter.transfer import Transfer
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
    remarks: tuple[str, ...]


def summarise(checkpoint: Checkpoint) -> CheckpointSummary:
    """Count an opened checkpoint's weights by scheme; reads no codes."""
    tensors: Counter[str] = Counter()
    parameters: Counter[str] = Counter()
    for weight in checkpoint.weights.values():
        scheme = weight.scheme
        tensors[scheme] += 1
        parameters[scheme] += math.prod(weight.shape)
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
        remarks=checkpoint.remarks,
    )


def checkpoint_view(summary: CheckpointSummary) -> RenderableType:
    """The summary as a table by scheme."""
    title = (
        f"{summary.path}: {summary.format} checkpoint, {summary.architecture}, "
        f"{summary.parameters:,} parameters, {decimal(summary.bytes)} of weights"
    )
    rows = [(s.scheme, f"{s.tensors:,}", f"{s.parameters:,}") for s in summary.schemes]
    table = _table(("kept as", "tensors", "parameters"), rows, right={1, 2})
    return Group(Text(title), table, *_remarks(summary.remarks))


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
    return Group(Text(title), *parts, *_remarks(manifest.source.remarks))


def proof_view(proof: Proof) -> RenderableType:
    """What was compared, by weight set."""
    title = f"{proof.bundle}: the ledger is true of {proof.checkpoint} (seal {proof.seal})"
    rows = [
        (
            name,
            f"{proven.exact:,}",
            f"{proven.requantised:,}",
            f"{proven.codes_compared:,}",
            f"{proven.codes_changed:,}",
            f"{proven.values_compared:,}",
            f"{proven.largest_rms:.2%}",
            f"{proven.largest_max:.2%}",
            f"{proven.zeros_before:,} → {proven.zeros_after:,}",
        )
        for name, proven in sorted(proof.weights.items())
    ]
    head = (
        "weights",
        "tensors exact",
        "requantised",
        "codes compared",
        "codes changed",
        "floats compared",
        "largest rms error",
        "largest max error",
        "zeros",
    )
    return Group(Text(title), _table(head, rows, right=range(1, len(head))))


def transfer_view(transfer: Transfer) -> RenderableType:
    """Sizes on the wire, by weight set and encoding."""
    rows = [
        (
            name,
            f"{token} {size.level}",
            decimal(size.plain),
            decimal(size.compressed),
            f"{size.compressed / max(size.plain, 1):.1%}",
        )
        for name, encodings in sorted(transfer.weights.items())
        for token, size in encodings.items()
    ]
    head = ("weights", "encoding and level", "as they are", "on the wire", "of it")
    return _table(head, rows, right={2, 3, 4})


def _remarks(remarks: Iterable[str]) -> list[Text]:
    return [Text(f"Note: {remark}.") for remark in remarks]


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


def _ledger(name: str, tensors: Sequence[Tensor]) -> Group:
    rows = [
        (
            tensor.name,
            "x".join(map(str, tensor.shape)),
            tensor.source,
            _stored(tensor),
            tensor.outcome,
            _rounding([tensor]),
            "" if tensor.rounding is None else f"{tensor.rounding.max:.2%}",
            _zeros([tensor]),
        )
        for tensor in tensors
    ]
    errors = ("rms error", "max error")
    head = (f"weights {name}", "shape", "source", "stored", "outcome", *errors, "zeros")
    return Group(_table(head, rows, right={5, 6, 7}), Text(_totals(name, tensors)))


def _totals(name: str, tensors: Sequence[Tensor]) -> str:
    outcomes = Counter(tensor.outcome for tensor in tensors)
    matrices = [tensor for tensor in tensors if tensor.zeros is not None]
    text = (
        f"weights {name}: {outcomes['exact']:,} tensors exact, "
        f"{outcomes['requantised']:,} requantised"
    )
    if not matrices:
        return text
    structured = sum(t.zeros is not None and t.zeros.pattern == "2:4" for t in matrices)
    return f"{text}; zeros of {len(matrices):,} matrices: {_zeros(matrices)}, 2:4 in {structured:,}"


def _stored(tensor: Tensor) -> str:
    if tensor.bits is None:
        return tensor.value_dtype or "elsewhere"
    scales = {"float16": "f16", "float32": "f32"}[tensor.scale_dtype or "float32"]
    return f"int{tensor.bits} g{tensor.block_size}, {scales} scales"


def _rounding(tensors: Iterable[Tensor]) -> str:
    worst = max((t.rounding.rms for t in tensors if t.rounding is not None), default=None)
    return "" if worst is None else f"{worst:.2%}"


def _zeros(tensors: Iterable[Tensor]) -> str:
    """Share of zero values in the source and as stored, all of ``tensors`` together."""
    counted = [(math.prod(t.shape), t.zeros) for t in tensors if t.zeros is not None]
    total = sum(size for size, _ in counted)
    if not total:
        return ""
    source = sum(size * zeros.source for size, zeros in counted) / total
    stored = sum(size * zeros.stored for size, zeros in counted) / total
    pattern = " 2:4" if all(zeros.pattern == "2:4" for _, zeros in counted) else ""
    before, after = f"{source:.1%}", f"{stored:.1%}"
    return f"{after}{pattern}" if before == after else f"{before} → {after}{pattern}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], right: Iterable[int] = ()) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(head):
        table.add_column(name, justify="right" if index in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
