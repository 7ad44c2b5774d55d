"""One method by llm-compressor."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch

from exporter.compress.calibration import Samples
from exporter.compress.models import choose_group_size, load_model
from exporter.compress.recipes import LlmCompressor, Settings
from manifests.progress import Progress

# Else it logs to stdout while it works; stdout is for results.  It says nothing critical,
# and with its log disabled it does not know its own level of metrics and stops.
os.environ["LLM_COMPRESSOR_LOG_LEVEL"] = "CRITICAL"

from llmcompressor.entrypoints.oneshot import oneshot
from llmcompressor.utils.pytorch.module import infer_sequential_targets

from exporter.compress.modifiers import MODIFIERS


def run(
    work: LlmCompressor,
    source: Path,
    out: Path,
    settings: Settings,
    samples: Samples | None,
    phase: str,
    progress: Progress,
) -> int | None:
    """Compress the checkpoint in ``source`` to ``out``; gives the group size that was chosen.

    Samples are calibrated with one at a time, so that none is padded.

    Raises:
        GroupDoesNotFit: a group does not divide a linear's width.
    """
    model = load_model(source)
    group_size = choose_group_size(source, model, settings.group_size) if work.is_grouped else None
    modifiers = [
        MODIFIERS[modifier.name](**modifier.arguments)
        for modifier in work.modifiers(settings, group_size)
    ]
    calibrated = sum(modifier.requires_calibration_data for modifier in modifiers)
    ids = [torch.tensor([sample]) for sample in samples.ids] if samples and calibrated else []
    batches = [{"input_ids": each, "attention_mask": torch.ones_like(each)} for each in ids]
    data: Any = torch.utils.data.DataLoader(batches, batch_size=None) if batches else None  # type: ignore[arg-type]
    with _told(model, 2 * calibrated * len(ids), phase, progress), _short_head(model):
        oneshot(model=model, recipe=modifiers, dataset=data)
    model.save_pretrained(out, save_compressed=True)
    return group_size


@contextmanager
def _told(model: Any, passes: int, phase: str, progress: Progress) -> Iterator[None]:
    """Count the layers that samples go through; each goes ``passes`` times through all."""
    kinds = set(infer_sequential_targets(model))
    layers = [module for module in model.modules() if type(module).__name__ in kinds]
    total, calls = passes * len(layers), count(1)

    def tell(*_: object) -> None:
        # Tracing and OWL go through the layers, too; and the end is told when it is saved.
        progress(phase, min(next(calls), total - 1), total)

    handles = [layer.register_forward_pre_hook(tell) for layer in layers if total]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _short_head(model: Any) -> Iterator[None]:
    """Let the head see one position only: nobody reads the logits, and they are large."""
    head = model.get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda _, inputs: (inputs[0][:, -1:],))
    try:
        yield
    finally:
        handle.remove()
