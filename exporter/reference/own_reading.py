"""A checkpoint's weights in a PyTorch model, read by exporter.checkpoint.

For formats that transformers reads only with a library that cannot be installed beside
ours, and for adapters merged into a compressed base, which no library does.  The
reference says when this was done: it can show what the export lost, not whether the
format was understood.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from exporter.checkpoint import Dense, Packed, open_checkpoint
from exporter.checkpoint.weights import packed_rows
from exporter.reference.weights import Floats


def fill(model: Any, checkpoint: Path, adapter: Path | None = None) -> Any:
    """Give every parameter of ``model`` its value; return ``model``.

    Raises:
        TensorMissing, TensorUnknown, WrongShape: the checkpoint is not of this model.
        BadInput: the checkpoint is damaged.
    """
    parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
    for weight in open_checkpoint(checkpoint, adapter).select(parameter_shapes(model)):
        parameters[weight.name].data.copy_(torch.from_numpy(floats(weight)))
    return model


def parameter_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of ``model``'s parameters by name; one that is tied is there once."""
    return {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}


def floats(weight: Dense | Packed) -> Floats:
    """The values of ``weight``, as our own reading of its format has them."""
    if isinstance(weight, Dense):
        return weight.values()
    return packed_rows(weight, weight.scales(), weight.zero_points(), 0, weight.shape[0])
