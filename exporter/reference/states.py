"""What PyTorch computes between a model's modules, in a file that another room can read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from exporter.checkpoint import Checkpoint
from exporter.reference.model import DeviceName, load_bundle
from exporter.reference.own_reading import floats, parameter_shapes
from manifests.bundle import WeightSet
from manifests.diagnosis import Point

LOGITS = Point(module="logits", side="output")
#: Rounding aside, an exact row's values are the checkpoint's.
_SAME = 1e-6


def carried_model(
    checkpoint: Checkpoint, bundle: Path, weights: WeightSet, device: DeviceName
) -> tuple[Any, tuple[str, ...]]:
    """The model as the ledger says that it was carried, in float32.

    Exact rows come from the checkpoint, the others from the bundle, so that neither a
    second rounding counts as a fault nor a damaged shard as right.

    Returns:
        The model, and the exact rows whose values in the bundle are not the checkpoint's.

    Raises:
        LedgerMismatch: the ledger's rows are not exactly the model's parameters.
        BadInput: the checkpoint is damaged.
    """
    model = load_bundle(checkpoint.path, bundle, weights, device)
    parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
    exact = {row.name for row in weights.tensors if row.outcome == "exact"}
    changed = []
    for weight in checkpoint.select(parameter_shapes(model)):
        if weight.name not in exact:
            continue
        values = torch.from_numpy(floats(weight)).to(device)
        stored = parameters[weight.name].data
        if float((stored - values).norm()) > _SAME * float(values.norm()):
            changed.append(weight.name)
            stored.copy_(values)
    return model, tuple(changed)


@torch.inference_mode()
def write_states(model: Any, ids: Sequence[int], points: Sequence[Point], out: Path) -> list[Point]:
    """Run ``ids`` through ``model``; write what it computes at ``points`` to ``out``.

    The file is safetensors: by the point's name, float32 [tokens, width]; ``logits`` too.

    Returns:
        Those of ``points`` that the model has, in their order.
    """
    wanted = {point.module for point in points}
    found: dict[Point, NDArray[np.float32]] = {}

    def hook(name: str) -> Any:
        def note(_: Any, given: tuple[Any, ...], named: dict[str, Any], made: Any) -> None:
            first = given[0] if given else next(iter(named.values()))
            for side, value in (("input", first), ("output", made)):
                rows = value.detach().float().reshape(value.shape[1], -1).cpu().numpy()
                # A copy: the model may go on working in place.
                found.setdefault(_point(points, name, side), np.array(rows))

        return note

    handles = [
        module.register_forward_hook(hook(name), with_kwargs=True)
        for name, module in model.named_modules()
        if name in wanted
    ]
    try:
        tensor = torch.tensor([list(ids)], device=model.device)
        logits = model(input_ids=tensor, use_cache=False).logits[0].float().cpu().numpy()
    finally:
        for handle in handles:
            handle.remove()
    kept = [point for point in points if point in found]
    save_file({str(point): found[point] for point in kept} | {str(LOGITS): logits}, out)
    return kept


def _point(points: Sequence[Point], module: str, side: str) -> Point:
    same = (point for point in points if (point.module, point.side) == (module, side))
    return next(same, Point.model_validate({"module": module, "side": side}))
