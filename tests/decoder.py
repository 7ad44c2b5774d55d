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
        first = {"batch_size": 1, "past_sequence_length": 0}
        self._next = {state.output: state.input for state in entry.states}
        self._states = {
            state.input: np.zeros(
                [axis if isinstance(axis, int) else first[axis] for axis in state.shape],
                DTYPES[state.dtype],
            )
            for state in entry.states
        }
        self._past = 0

    def step(self, ids: NDArray[np.int64], keep: int) -> NDArray[np.float32]:
        self._past += len(ids)
        logits, *states = self._session.run(
            ["logits", *self._next],
            {
                "input_ids": ids[None],
                "attention_mask": np.ones((1, self._past), np.int64),
                "num_logits_to_keep": np.array(keep, np.int64),
                **self._states,
            },
        )
        self._states = dict(zip(self._next.values(), states, strict=True))
        kept: NDArray[np.float32] = logits[0].astype(np.float32)
        return kept
