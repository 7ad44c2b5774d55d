"""A bundle's graph in onnxruntime's CPU provider."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from manifests.bundle import read_manifest

DTYPES = {"float32": np.float32, "float16": np.float16}


class Decoder:
    """A target's graph in onnxruntime, fed as docs/architecture.md says."""

    def __init__(self, bundle: Path, target: str) -> None:
        manifest = read_manifest(bundle)
        entry = manifest.targets[target]
        options = ort.SessionOptions()
        for key, value in entry.session_config.items():
            options.add_session_config_entry(key, value)
        self._session = ort.InferenceSession(
            bundle / entry.graph, options, providers=["CPUExecutionProvider"]
        )
        model = manifest.model
        empty = np.zeros((1, model.kv_heads, 0, model.head_dim), DTYPES[entry.activation_dtype])
        self._cache = {
            f"past_key_values.{layer}.{part}": empty
            for layer in range(model.layers)
            for part in ("key", "value")
        }
        self._past = 0

    def step(self, ids: NDArray[np.int64], keep: int) -> NDArray[np.float32]:
        self._past += len(ids)
        outputs = self._session.run(
            None,
            {
                "input_ids": ids[None],
                "attention_mask": np.ones((1, self._past), np.int64),
                "num_logits_to_keep": np.array(keep, np.int64),
                **self._cache,
            },
        )
        self._cache = dict(zip(self._cache, outputs[1:], strict=True))
        logits: NDArray[np.float32] = outputs[0][0].astype(np.float32)
        return logits
