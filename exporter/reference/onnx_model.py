"""A ready-made ONNX decoder in onnxruntime, called as a transformers model is.

It shares nothing with the exporter's reading of the graph: onnxruntime opens the original
file, and takes the bundle's weights in place of that file's where it is told to.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

Weights = Iterable[tuple[str, NDArray[np.generic]]]
_PAST, _PRESENT = "past_key_values.", "present."
_DTYPES: MappingProxyType[str, type[np.generic]] = MappingProxyType(
    {"tensor(float)": np.float32, "tensor(float16)": np.float16}
)
_SILENT = 4


class OnnxDecoder:
    """The graph at ``path``, on the CPU.

    ``weights``: initializers' names and values that take the place of the file's own.
    """

    device = torch.device("cpu")

    def __init__(self, path: Path, weights: Weights = ()) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = _SILENT
        # onnxruntime reads the values where they are: they must live as long as it does.
        self._weights = [(name, ort.OrtValue.ortvalue_from_numpy(each)) for name, each in weights]
        for name, value in self._weights:
            options.add_initializer(name, value)
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._inputs = {value.name: value for value in self._session.get_inputs()}

    def __call__(
        self,
        input_ids: torch.Tensor,
        past_key_values: dict[str, NDArray[np.generic]] | None = None,
        logits_to_keep: int = 0,
        **_: bool,
    ) -> Any:
        """Logits [1, positions, vocabulary] and the cache; ``input_ids`` is [1, positions]."""
        past = past_key_values or self._empty()
        before = next(iter(past.values())).shape[2]
        count = input_ids.shape[1]
        feeds: dict[str, NDArray[np.generic]] = {
            **past,
            "input_ids": input_ids.numpy(),
            "attention_mask": np.ones((1, before + count), np.int64),
        }
        if "position_ids" in self._inputs:
            feeds["position_ids"] = np.arange(before, before + count, dtype=np.int64)[None]
        presents = [_PRESENT + name.removeprefix(_PAST) for name in past]
        logits, *cache = self._session.run(["logits", *presents], feeds)
        return SimpleNamespace(
            logits=torch.from_numpy(logits)[:, -logits_to_keep:],
            past_key_values=dict(zip(past, cache, strict=True)),
        )

    def _empty(self) -> dict[str, NDArray[np.generic]]:
        return {
            name: np.zeros((1, value.shape[1], 0, value.shape[3]), _DTYPES[value.type])
            for name, value in self._inputs.items()
            if name.startswith(_PAST)
        }
