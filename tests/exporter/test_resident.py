"""The resident graph in onnxruntime's CPU provider, against the conventional one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from exporter.graph.skeleton import build_skeleton
from exporter.lower.resident import can_be_resident
from exporter.pipeline import export
from manifests.bundle import read_manifest
from targets import TARGETS, find_targets
from tests.decoder import DTYPES, Decoder
from tests.families import FAMILY_CASES, write_family

CAPACITY = 48
PROMPT = np.random.default_rng(3).integers(3, 512, 21)
TOLERANCE = {"webgpu-q4": 1e-4, "webgpu-q4f16": 5e-2}


class Resident:
    """A loop as the page runs it: caches of one size, chunks that are padded."""

    def __init__(self, bundle: Path, target: str) -> None:
        entry = read_manifest(bundle).targets[target]
        assert entry.resident_graph is not None
        self._session = ort.InferenceSession(
            bundle / entry.resident_graph, providers=["CPUExecutionProvider"]
        )
        sizes = {"batch_size": 1, "past_sequence_length": CAPACITY}
        self._next = {state.output: state.input for state in entry.states}
        # Nothing of what lies beyond the text may be read.
        self._states = {
            state.input: np.full(
                [axis if isinstance(axis, int) else sizes[axis] for axis in state.shape],
                100,
                DTYPES[state.dtype],
            )
            for state in entry.states
        }

    def step(
        self, ids: NDArray[np.int64], position: int, row: int
    ) -> tuple[NDArray[np.float32], int]:
        """Logits of ``row`` of ``ids``, which stand at ``position``, and the token chosen."""
        total = position + len(ids)
        feeds: dict[str, Any] = {
            "input_ids": ids[None],
            "seqlens_k": np.array([total - 1], np.int32),
            "total_sequence_length": np.array([total], np.int32),
            "kept_rows": np.array([row]),
            **self._states,
        }
        logits, token, *states = self._session.run(["logits", "next_ids", *self._next], feeds)
        self._states = dict(zip(self._next.values(), states, strict=True))
        assert logits.dtype == np.float32
        return logits[0, 0], int(token[0, 0])


@pytest.fixture(scope="module")
def bundle(
    tiny_checkpoint: Callable[[str], Path], page: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    export(
        tiny_checkpoint("w4a16-g32-untied"),
        find_targets((*TOLERANCE, "wasm-q4")),
        out,
        runtime=page,
    )
    return out


@pytest.mark.parametrize("target", TOLERANCE)
def test_padded_chunks_and_steps_give_the_conventional_graph_s_logits(
    target: str, bundle: Path
) -> None:
    conventional, resident = Decoder(bundle, target), Resident(bundle, target)
    expected = conventional.step(PROMPT, 1)[0]
    resident.step(PROMPT[:16], 0, 15)
    padded = np.concatenate([PROMPT[16:], np.zeros(11, np.int64)])
    found, token = resident.step(padded, 16, 4)
    for position in range(21, 29):
        np.testing.assert_allclose(found, expected, atol=TOLERANCE[target])
        assert token == found.argmax()
        expected = conventional.step(np.array([token]), 1)[0]
        found, token = resident.step(np.array([token]), position, 0)


def test_both_graphs_are_over_the_same_weights(bundle: Path) -> None:
    entry = read_manifest(bundle).targets["webgpu-q4"]
    places = []
    for path in (entry.graph, entry.resident_graph):
        tensors = ir.load(bundle / str(path)).graph.initializers.values()
        external = [t.const_value for t in tensors if isinstance(t.const_value, ir.ExternalTensor)]
        places.append({(str(t.location), t.offset, t.length) for t in external})
    assert places[0] == places[1]


def test_a_target_without_a_gpu_has_none(bundle: Path) -> None:
    assert read_manifest(bundle).targets["wasm-q4"].resident_graph is None
    assert all(t.resident_graph is None for t in TARGETS.values() if t.execution_provider == "wasm")


#: A window or a cap in the attention, or a state that is no KV cache, needs the plain loop.
RESIDENT = {
    "llama-biases": True,
    "llama-yarn": True,
    "mistral": False,
    "mistral-no-window": True,
    "qwen2": True,
    "qwen2-some-windows": False,
    "qwen3": True,
    "smollm3": False,
    "gemma2": False,
    "gemma3_text": False,
    "lfm2": False,
    "phi3": False,
}


@pytest.mark.parametrize("case", RESIDENT)
def test_which_models_can_be_resident(case: str, tmp_path: Path) -> None:
    config = json.loads((write_family(FAMILY_CASES[case], tmp_path) / "config.json").read_text())
    skeleton = build_skeleton(tmp_path / "config.json", config, "float32", 64)
    assert can_be_resident(skeleton) == RESIDENT[case]
