"""The logits by which a page knows that its device computes rightly.

Each target's own graph is run by onnxruntime on the CPU, as it was written: without the
optimiser, which in the page is another one, and without prepacking, so that the shards
stay on disk and one matrix at a time is unfolded.  MatMulNBits has no accuracy level, so
activations stay floats.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from manifests.bundle import TargetEntry
from manifests.errors import BadInput
from manifests.progress import Progress, silent
from manifests.self_check import ExpectedLogits, SelfCheck, TopLogits

#: Fed as one prompt: more than the 32 from which on SwiftShader's optional features go wrong.
PROMPT_TOKENS = 40
#: Fed one by one after it: SwiftShader needs seconds for each, a GPU milliseconds.
SINGLE_TOKENS = 1
TOP = 16
#: In standard deviations of a position's logits.  SmolLM2's float16 graph is 0.03 away from
#: its float32 one on the CPU; two float32 graphs are 0.00003 apart.  What is wrong is off by
#: more than 0.3.
TOLERANCES: MappingProxyType[str, float] = MappingProxyType({"float32": 0.02, "float16": 0.2})
_TEXT = (
    "The capital of France is Paris, and the river that runs through it is the Seine. "
    "عاصمة فرنسا هي باريس، ويمر بها نهر السين. "
    "1, 2, 3, 4, 5; def add(a, b): return a + b. "
)
_DTYPES = {"float32": np.float32, "float16": np.float16}
_SILENT = 4


class GraphFailed(BadInput):
    """onnxruntime cannot run a graph that was written: no browser could either."""

    code = "graph-failed"

    def __init__(self, target: str, reason: str) -> None:
        super().__init__(
            f"{target}: onnxruntime cannot run the graph: {reason}",
            "leave this target out, or report it with the checkpoint's config.json",
        )


class LogitsNotFinite(BadInput):
    """A target's own graph computes infinity or NaN."""

    code = "logits-not-finite"

    def __init__(self, target: str) -> None:
        super().__init__(
            f"{target}: the model's logits are not finite numbers on a plain text",
            "leave this target out if its activations are float16; otherwise the weights are bad",
        )


def make_self_check(
    stage: Path,
    targets: dict[str, TargetEntry],
    tokenizer: Tokenizer,
    *,
    vocabulary: int,
    context: int,
    progress: Progress = silent,
) -> SelfCheck:
    """Run each of ``targets``, whose graphs and shards are in ``stage``, on a short text.

    Raises:
        GraphFailed, LogitsNotFinite: a target that would not work anywhere.
    """
    tokens = _tokens(tokenizer, vocabulary, min(PROMPT_TOKENS + SINGLE_TOKENS, context))
    prompt = max(1, len(tokens) - SINGLE_TOKENS)
    expected = {}
    for done, (name, entry) in enumerate(targets.items()):
        progress("self-check", done, len(targets))
        logits = _last_logits(stage, name, entry, tokens, len(tokens) - prompt + 1)
        expected[name] = ExpectedLogits(
            tolerance=TOLERANCES[entry.activation_dtype],
            positions=tuple(
                _top(name, prompt - 1 + row, values) for row, values in enumerate(logits)
            ),
        )
    progress("self-check", len(targets), len(targets))
    return SelfCheck(tokens=tuple(tokens), prompt_tokens=prompt, targets=expected)


def _tokens(tokenizer: Tokenizer, vocabulary: int, count: int) -> list[int]:
    ids = tokenizer.encode(_TEXT).ids or [0]
    # A tokenizer may know more tokens than the model has rows.
    return [ids[place % len(ids)] % vocabulary for place in range(count)]


def _last_logits(
    stage: Path, name: str, entry: TargetEntry, tokens: list[int], rows: int
) -> NDArray[np.float32]:
    """Logits [rows, vocabulary] of the last ``rows`` of ``tokens``."""
    options = ort.SessionOptions()
    options.log_severity_level = _SILENT
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.use_deterministic_compute = True
    options.enable_cpu_mem_arena = False
    # Weights are unfolded where they are used; the default order holds most of them at once.
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    options.add_session_config_entry("session.disable_prepacking", "1")
    first = {"batch_size": 1, "past_sequence_length": 0}
    feeds: dict[str, NDArray[np.generic]] = {
        state.input: np.zeros(
            [axis if isinstance(axis, int) else first[axis] for axis in state.shape],
            _DTYPES[state.dtype],
        )
        for state in entry.states
    }
    count = len(tokens)
    feeds["input_ids"] = np.array([tokens], np.int64)
    feeds["attention_mask"] = np.ones((1, count), np.int64)
    feeds["num_logits_to_keep"] = np.array(rows, np.int64)
    feeds["position_ids"] = np.arange(count, dtype=np.int64)[None]
    try:
        session = ort.InferenceSession(
            stage / entry.graph, options, providers=["CPUExecutionProvider"]
        )
        wanted = {value.name for value in session.get_inputs()}
        [logits] = session.run(
            ["logits"], {key: value for key, value in feeds.items() if key in wanted}
        )
    except Exception as error:  # noqa: BLE001 - onnxruntime raises nothing more exact
        raise GraphFailed(name, " ".join(str(error).split())[:300]) from None
    last: NDArray[np.float32] = logits[0, -rows:].astype(np.float32)
    return last


def _top(target: str, position: int, logits: NDArray[np.float32]) -> TopLogits:
    if not np.isfinite(logits).all():
        raise LogitsNotFinite(target)
    best = np.argsort(-logits, kind="stable")[:TOP]
    return TopLogits(
        position=position,
        ids=tuple(best.tolist()),
        values=tuple(logits[best].tolist()),
        spread=float(logits.std(dtype=np.float64)),
    )
