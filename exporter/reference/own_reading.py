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
from exporter.quant.blocks import dequantise
from exporter.reference.weights import Floats


def fill(model: Any, checkpoint: Path, adapter: Path | None = None) -> Any:
    """Give every parameter of ``model`` its value; return ``model``.

    Raises:
        TensorMissing, TensorUnknown, WrongShape: the checkpoint is not of this model.
        BadInput: the checkpoint is damaged.
    """
    parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
    shapes = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    for weight in open_checkpoint(checkpoint, adapter).select(shapes):
        parameters[weight.name].data.copy_(torch.from_numpy(floats(weight)))
    return model


def floats(weight: Dense | Packed) -> Floats:
    """The values of ``weight``, as our own reading of its format has them."""
    if isinstance(weight, Dense):
        return weight.values()
    codes = weight.codes(0, weight.shape[0])
    return dequantise(codes, weight.scales(), weight.zero_points(), weight.bits)
