"""Compress a checkpoint by one method after another."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from exporter.checkpoint import Checkpoint, Dense, open_checkpoint
from exporter.checkpoint.folder import HEAD, OPTIONAL_FILES, TOKENIZER_FILES
from exporter.checkpoint.weights import row_blocks
from exporter.compress.calibration import Calibration, Samples, draw_samples
from exporter.compress.errors import AlreadyCompressed, ExtraMissing
from exporter.compress.recipes import BitsAndBytes, LlmCompressor, Method, Settings
from exporter.quant.census import zeros_of_codes
from exporter.write.staging import check_output, staged
from manifests.base import Schema
from manifests.progress import Progress, silent

#: Beside the weights; readers of checkpoints pass it over.
SUMMARY = "compression.json"
_NOT_COMPRESSED = ("model.embed_tokens.weight", HEAD)
_TOOLS = ("accelerate", "bitsandbytes", "compressed-tensors", "llmcompressor", "torch")


class Compression(Schema):
    """What was done to a checkpoint, and what came of it.

    Bytes are those of the weights' files.  ``zeros`` is the share of exact zeros in the
    linears that the methods work on.  ``group_size`` and ``calibration`` are those of the
    methods that have them.
    """

    methods: tuple[str, ...]
    bytes_before: int
    bytes_after: int
    ratio: float
    zeros: float
    seconds: float
    group_size: int | None = None
    sparsity: float | None = None
    mask_structure: str | None = None
    sparsity_profile: str | None = None
    calibration: Calibration | None = None
    tools: dict[str, str]


def compress(
    checkpoint: Path,
    out: Path,
    methods: Sequence[Method],
    settings: Settings,
    progress: Progress = silent,
) -> Compression:
    """Write ``checkpoint``, compressed, to the new folder ``out``.

    The tokenizer's files are copied as they are, and :data:`SUMMARY` is added.

    Args:
        checkpoint: a folder of floats.
        out: the folder; it appears whole or not at all.
        methods: a chain that :func:`exporter.compress.recipes.plan` accepts.
        settings: of the whole chain.
        progress: told of each method.

    Raises:
        OutputExists: ``out`` is there already.
        ExtraMissing: a package of the extra is not installed.
        AlreadyCompressed: ``checkpoint`` is not in floats.
        GroupDoesNotFit: a group does not divide a linear's width.
        NotRunnable: transformers has no model for its config.
        TensorMissing, TensorUnknown, WrongShape: its tensors are not those of its config.
        BadCalibration, TooLittleText: the text.
        BadInput: ``checkpoint`` cannot be read.
    """
    check_output(out, force=False)
    tools = _versions()
    source = open_checkpoint(checkpoint)
    if source.format != "safetensors":
        raise AlreadyCompressed(checkpoint, source.format)
    started = time.monotonic()
    # torch and transformers are imported for work that will be done.
    from exporter.reference.quiet import quiet_libraries  # noqa: PLC0415

    with (
        quiet_libraries(),
        staged(out, force=False) as stage,
        tempfile.TemporaryDirectory(prefix="tabwright-", dir=out.parent) as scratch,
    ):
        samples = _samples(checkpoint, methods, settings)
        step, group_size = checkpoint, None
        for number, method in enumerate(methods, 1):
            target = stage if number == len(methods) else Path(scratch) / method.name
            chosen = _carry_out(method, step, target, settings, samples, progress)
            group_size = chosen or group_size
            _copy_tokenizer(source, target)
            step = target
        result = open_checkpoint(stage)
        before, after = _size(source), _size(result)
        prunes = any(method.prunes for method in methods)
        summary = Compression(
            methods=tuple(method.name for method in methods),
            bytes_before=before,
            bytes_after=after,
            ratio=before / after,
            zeros=_share_of_zeros(result),
            seconds=time.monotonic() - started,
            group_size=group_size,
            sparsity=settings.sparsity if prunes else None,
            mask_structure=settings.mask_structure if prunes else None,
            sparsity_profile=settings.sparsity_profile if prunes else None,
            calibration=samples.calibration if samples else None,
            tools=tools,
        )
        summary.save(stage / SUMMARY)
    return summary


def _versions() -> dict[str, str]:
    try:
        return {name: version(name) for name in _TOOLS}
    except PackageNotFoundError as error:
        raise ExtraMissing(str(error.name)) from None


def _samples(checkpoint: Path, methods: Sequence[Method], settings: Settings) -> Samples | None:
    from transformers import AutoTokenizer  # noqa: PLC0415

    if not any(method.is_calibrated for method in methods):
        return None
    tokenizer: Any = AutoTokenizer.from_pretrained(checkpoint, local_files_only=True)
    return draw_samples(tokenizer, settings)


def _carry_out(
    method: Method,
    source: Path,
    out: Path,
    settings: Settings,
    samples: Samples | None,
    progress: Progress,
) -> int | None:
    """Compress ``source`` to ``out``; gives the group size that was chosen."""
    phase = f"compress: {method.name}"
    progress(phase, 0, 1)
    match method.work:
        case LlmCompressor() as work:
            from exporter.compress.oneshot import run  # noqa: PLC0415

            group_size = run(work, source, out, settings, samples, phase, progress)
        case BitsAndBytes() as work:
            from exporter.compress.bitsandbytes import run as round_off  # noqa: PLC0415

            group_size = None
            round_off(work, source, out)
    progress(phase, 1, 1)
    return group_size


def _copy_tokenizer(source: Checkpoint, out: Path) -> None:
    for name in (*TOKENIZER_FILES, *OPTIONAL_FILES):
        document = source.documents.read(name)
        if document is not None:
            (out / name).write_bytes(document)


def _size(checkpoint: Checkpoint) -> int:
    return sum(path.stat().st_size for path in checkpoint.weight_files)


def _share_of_zeros(checkpoint: Checkpoint) -> float:
    """Of the matrices that compressors work on: all but the embedding and the head."""
    zeros = total = 0
    for name, weight in checkpoint.weights.items():
        if len(weight.shape) != 2 or name in _NOT_COMPRESSED:
            continue
        total += math.prod(weight.shape)
        if isinstance(weight, Dense):
            blocks = (weight.rows(*rows) == 0 for rows in row_blocks(*weight.shape))
            zeros += sum(int(np.count_nonzero(block)) for block in blocks)
        else:
            codes = weight.codes(0, weight.shape[0])
            found = zeros_of_codes(codes, weight.scales(), weight.zero_points(), weight.bits)
            zeros += int(np.count_nonzero(found))
    return zeros / total
