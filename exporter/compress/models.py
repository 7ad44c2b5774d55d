"""The model that is compressed, in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from exporter.checkpoint import open_checkpoint
from exporter.compress.errors import GroupDoesNotFit
from exporter.compress.recipes import GROUP_SIZES
from exporter.reference.model import load_weights, read_config, without_weights
from exporter.reference.own_reading import parameter_shapes


def load_model(folder: Path, **arguments: Any) -> Any:
    """Load the checkpoint in ``folder`` in its own dtype; ``arguments`` are transformers'.

    Raises:
        NotRunnable: transformers has no causal language model for it.
        TensorMissing, TensorUnknown, WrongShape: its tensors are not those of its config.
    """
    config = read_config(folder)
    with torch.device("meta"):
        empty = without_weights(config, torch.float32)
    # transformers leaves out what it does not know, and looks at no shape where it rounds.
    open_checkpoint(folder).select(parameter_shapes(empty))
    # Making a model changes the config that it is made of.
    return load_weights(folder, read_config(folder), dtype="auto", **arguments)


def linears_of(model: Any) -> dict[str, torch.nn.Linear]:
    """The linears that compressors work on, by name: all but the head."""
    head = model.get_output_embeddings()
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }


def choose_group_size(folder: Path, model: Any, wanted: int | None) -> int:
    """``wanted``, or the largest of :data:`GROUP_SIZES` that divides every linear's width.

    Raises:
        GroupDoesNotFit: a linear that it does not divide.
    """
    candidates = GROUP_SIZES if wanted is None else (wanted,)
    widths = {name: module.in_features for name, module in linears_of(model).items()}
    for group in candidates:
        misfits = [name for name, width in widths.items() if width % group]
        if not misfits:
            return group
    raise GroupDoesNotFit(folder, misfits[0], widths[misfits[0]], group)
