"""What a PEFT adapter makes of the checkpoint's weights, computed once more."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from exporter.prove.files import Tensors
from exporter.prove.formats import plain
from exporter.prove.values import Floats, Matrix, floats

_PREFIX = "base_model.model."


class Adapter:
    """An adapter's folder, which was checked when the checkpoint was opened with it."""

    def __init__(self, folder: Path) -> None:
        self._config = json.loads((folder / "adapter_config.json").read_bytes())
        self._tensors = Tensors([folder / "adapter_model.safetensors"])

    def apply(self, name: str, base: Matrix) -> Matrix:
        """The weight ``name`` as the adapter changes it; ``base`` itself where it does not."""
        replaced = self._tensors.get(f"{_PREFIX}{name}")
        if replaced is not None:
            return plain(replaced)
        module = name.removesuffix(".weight")
        down = self._tensors.get(f"{_PREFIX}{module}.lora_A.weight")
        if down is None:
            return base
        up = self._tensors[f"{_PREFIX}{module}.lora_B.weight"]
        lengths = self._tensors.get(f"{_PREFIX}{module}.lora_magnitude_vector")
        rank = len(down)
        alpha = self._alpha(module)
        factor = alpha / (rank**0.5 if self._config.get("use_rslora") else rank)

        def read(start: int, stop: int) -> Floats:
            change = factor * np.einsum(
                "nr,rk->nk", up[start:stop].astype(np.float64), down.astype(np.float64)
            )
            merged = floats(base.read(start, stop)) + change
            if lengths is not None:
                now = np.sqrt((merged * merged).sum(axis=1))
                merged *= (lengths[start:stop].astype(np.float64) / now)[:, None]
            rounded: Floats = merged.astype(np.float32)
            return rounded

        return Matrix(base.shape, read)

    def _alpha(self, module: str) -> float:
        steps = module.split(".")
        endings = {".".join(steps[start:]) for start in range(len(steps))}
        patterns: dict[str, Any] = self._config.get("alpha_pattern") or {}
        own = [value for key, value in patterns.items() if key in endings]
        return float(own[0] if own else self._config.get("lora_alpha", 8))
