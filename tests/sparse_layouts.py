"""Writes compressed-tensors' sparse formats, value by value, from what they say.

The library wrote them up to 0.12; these loops stand in for it and share nothing with the
exporter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file, save_file

Form = Literal["sparse-bitmask", "sparse-24-bitmask"]


def rewrite(folder: Path, form: Form) -> dict[str, torch.Tensor]:
    """Prune the linears of the checkpoint in ``folder`` in place; give what is left of them."""
    path = folder / "model.safetensors"
    tensors, left = load_file(path), {}
    for name in [name for name in tensors if name.endswith("_proj.weight")]:
        left[name] = prune(tensors.pop(name), form)
        module = name.removesuffix(".weight")
        tensors |= {f"{module}.{part}": value for part, value in pack(left[name], form).items()}
    save_file(tensors, path, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    scheme = config.setdefault("quantization_config", {"quant_method": "compressed-tensors"})
    structure = "2:4" if form == "sparse-24-bitmask" else "unstructured"
    scheme["sparsity_config"] = {
        "format": form,
        "global_sparsity": 0.5,
        "ignore": ["lm_head"],
        "sparsity_structure": structure,
        "targets": ["Linear"],
    }
    (folder / "config.json").write_text(json.dumps(config))
    return left


def prune(weight: torch.Tensor, form: Form) -> torch.Tensor:
    """Zero the smaller two of four neighbours, or the smaller half of the matrix."""
    size = weight.float().abs()
    if form == "sparse-24-bitmask":
        groups = size.reshape(-1, 4)
        kept = torch.zeros_like(groups).scatter_(1, groups.topk(2).indices, 1).reshape(size.shape)
    else:
        kept = size > size.median()
    # Multiplied as bytes: torch has no arithmetic for float8.
    octets = weight.view(torch.uint8).reshape(*weight.shape, -1) * kept.to(torch.uint8)[..., None]
    return octets.reshape(weight.shape[0], -1).view(weight.dtype)


def pack(weight: torch.Tensor, form: Form) -> dict[str, torch.Tensor]:
    """The tensors of one linear, by the ending of their names."""
    rows, columns = weight.shape
    dense = weight.float().tolist()
    mask = [[0] * -(-columns // 8) for _ in range(rows)]
    places: list[tuple[int, int]] = []
    starts: list[int] = []
    for row in range(rows):
        starts.append(len(places))
        for column in range(columns):
            if dense[row][column]:
                mask[row][column // 8] |= 1 << column % 8
                places.append((row, column))
    at = torch.tensor(places, dtype=torch.int64).reshape(-1, 2)
    values = weight.view(torch.uint8).reshape(rows, columns, -1)[at[:, 0], at[:, 1]]
    parts = {
        "compressed": values.reshape(-1).view(weight.dtype),
        "bitmask": torch.tensor(mask, dtype=torch.uint8),
    }
    if form == "sparse-24-bitmask":
        parts["compressed"] = parts["compressed"].reshape(rows, columns // 2)
        return parts | {"shape": torch.tensor([[rows], [columns]])}
    return parts | {"shape": torch.tensor([rows, columns]), "row_offsets": torch.tensor(starts)}
