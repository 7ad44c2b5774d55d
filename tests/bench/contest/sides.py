"""Who takes part, as data: every peer in the best configuration that its documents name."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

Engine = Literal["tabwright", "transformers.js", "wllama", "onnxruntime", "onnxruntime-genai"]
Device = Literal["cpu", "gpu"]
NATIVE: tuple[Engine, ...] = ("onnxruntime", "onnxruntime-genai")


@dataclass(frozen=True)
class Side:
    """One row of the table.

    Attributes:
        what: which of the engine's models, for the reader.
        source: what is loaded: a target of the bundle, a folder or a file of the site.
        options: the engine's own settings, see ``tests/bench/peers``.
        threads: of the CPU.
        no_perplexity: why there is none, where the engine does not tell.
    """

    engine: Engine
    what: str
    device: Device
    threads: int
    source: str
    options: MappingProxyType[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    no_perplexity: str = ""

    @property
    def name(self) -> str:
        """How the table calls it."""
        return f"{self.engine} {self.what}"


def _settings(**options: Any) -> MappingProxyType[str, Any]:
    return MappingProxyType(options)


_LAST_ONLY = "its API gives the logits of the last position only; the graph is onnxruntime's"
_OWN_TOKENS_ONLY = "its API gives probabilities of tokens that it generated only"


def cpu_sides(threads: int) -> tuple[Side, ...]:
    """Everyone on the CPU with ``threads`` threads; ours comes first."""
    return (
        Side("tabwright", "wasm-q4", "cpu", threads, "wasm-q4"),
        Side(
            "transformers.js",
            "wasm q8",
            "cpu",
            threads,
            "q8",
            _settings(device="wasm", dtype="q8"),
        ),
        Side(
            "wllama",
            "Q4_1",
            "cpu",
            threads,
            "/gguf/model.gguf",
            _settings(n_ctx=1024, n_gpu_layers=0),
            _OWN_TOKENS_ONLY,
        ),
        Side("onnxruntime", "native, wasm-q4", "cpu", threads, "wasm-q4"),
        Side(
            "onnxruntime-genai",
            "native, wasm-q4",
            "cpu",
            threads,
            "wasm-q4",
            no_perplexity=_LAST_ONLY,
        ),
    )


#: On the GPU transformers.js reads the bundle itself, as config.json tells it to.
GPU_SIDES = (
    Side("tabwright", "webgpu-q4", "gpu", 1, "webgpu-q4"),
    Side("transformers.js", "webgpu q4", "gpu", 1, "bundle"),
)


@dataclass(frozen=True)
class Effort:
    """How much is asked of each visit, in tokens.

    Attributes:
        again: how many more times the prompt is fed for its first token only.
        together: whether all sides are opened once, and take turns, where a load takes longer
            than what is timed.
    """

    prompt: int
    warmup: int
    again: int
    few: int
    many: int
    together: bool
    perplexity: bool


EFFORTS: MappingProxyType[str, Effort] = MappingProxyType(
    {
        "full": Effort(36, warmup=8, again=8, few=8, many=64, together=False, perplexity=True),
        # SwiftShader takes 4 to 6 s for a token of this model: time is not the point there.
        "software": Effort(16, warmup=2, again=0, few=2, many=6, together=True, perplexity=False),
    }
)
