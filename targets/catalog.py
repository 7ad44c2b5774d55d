"""The targets, declared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal

from manifests.errors import EXIT_USAGE, TabwrightError

MIB = 1 << 20

Matmul = Literal["matmul-nbits", "dequantize-linear"]
Gather = Literal["gather-block-quantized", "unpacked"]
RoundingMethod = Literal["nearest", "search"]


class UnknownTarget(TabwrightError):
    """A target that is not in the catalogue."""

    code = "unknown-target"
    exit_status = EXIT_USAGE

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown target '{name}'", f"choose among {', '.join(sorted(TARGETS))}")


@dataclass(frozen=True)
class Target:
    """Where a bundle runs and what its graph may use there.

    Attributes:
        weight_set: name of the shards; targets with the same name share them.
        bits: width of a linear's codes.  Narrower codes of a checkpoint are
            widened exactly; wider ones are requantised, which the ledger tells.
        head_bits: width for the output head and the embedding, which compressors
            leave in floats.
        block_size: codes per scale where we quantise; the checkpoint's own group
            is kept where it has one.
        rounding: how scales of linears are chosen where we quantise, see
            :func:`exporter.quant.blocks.quantise`.
        graph: file stem under ``onnx/``; the suffixes are those that
            transformers.js looks for.
        resident_graph: file stem of a second graph over the same weights, whose decode
            loop stays on the GPU; ``None`` where there is no GPU to stay on.
        matmul: ``matmul-nbits`` keeps codes in memory (com.microsoft
            MatMulNBits); ``dequantize-linear`` is a float product over a DequantizeLinear, which
            every ONNX Runtime folds and our page replaces by a kernel over the codes.
        gather: ``gather-block-quantized`` reads an embedding's codes with one operator
            (com.microsoft GatherBlockQuantized); ``unpacked`` with several that every
            build has.
        max_shard_bytes: shards stay below it; far below 4 GiB, where wasm32
            runtimes read wrong offsets.
        features, limits: what the GPU device must offer.
        session_config: onnxruntime session configuration entries.
        heap_bytes: what weights may take of the 4 GiB wasm heap; ``None`` on a GPU.
    """

    name: str
    execution_provider: Literal["webgpu", "wasm"]
    weight_set: str
    bits: int
    head_bits: int
    graph: str
    activation_dtype: Literal["float16", "float32"]
    matmul: Matmul
    gather: Gather
    resident_graph: str | None = None
    block_size: int = 32
    rounding: RoundingMethod = "search"
    max_shard_bytes: int = 512 * MIB
    features: tuple[str, ...] = ()
    limits: MappingProxyType[str, int] = field(default_factory=lambda: MappingProxyType({}))
    session_config: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    heap_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions, and say which."""
        if self.execution_provider == "wasm" and (self.features or self.limits):
            raise ValueError(f"{self.name}: a wasm target needs no GPU features or limits")
        if self.execution_provider == "wasm" and self.resident_graph:
            raise ValueError(f"{self.name}: a wasm target has no GPU to stay on")
        if self.activation_dtype == "float16" and "shader-f16" not in self.features:
            raise ValueError(f"{self.name}: float16 activations need the feature shader-f16")
        if (self.execution_provider == "wasm") != (self.heap_bytes is not None):
            raise ValueError(f"{self.name}: a wasm target needs heap_bytes, and only it")
        if {self.bits, self.head_bits} - {4, 8}:
            raise ValueError(f"{self.name}: codes are 4 or 8 bits wide")


_WEBGPU_Q4 = Target(
    name="webgpu-q4",
    execution_provider="webgpu",
    weight_set="q4",
    bits=4,
    head_bits=8,
    graph="model_q4",
    activation_dtype="float32",
    matmul="matmul-nbits",
    gather="gather-block-quantized",
    resident_graph="model_q4_resident",
    # WebGPU's defaults are 256 MiB, 128 MiB and 8.  A large head is one binding, and
    # onnxruntime-web's fused q/k/v kernel binds nine buffers.
    limits=MappingProxyType(
        {
            "maxBufferSize": 1024 * MIB,
            "maxStorageBufferBindingSize": 1024 * MIB,
            "maxStorageBuffersPerShaderStage": 9,
        }
    ),
)
_WASM_Q4 = Target(
    name="wasm-q4",
    execution_provider="wasm",
    weight_set="q4",
    bits=4,
    head_bits=8,
    graph="model_q4_wasm",
    activation_dtype="float32",
    matmul="dequantize-linear",
    gather="unpacked",
    # ONNX Runtime must not make quantised kernels of what is meant as floats.
    session_config=MappingProxyType({"session.disable_quant_qdq": "1"}),
    heap_bytes=3328 * MIB,
)
_Q8: dict[str, Any] = {"weight_set": "q8", "bits": 8}

TARGETS: MappingProxyType[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            _WEBGPU_Q4,
            replace(
                _WEBGPU_Q4,
                name="webgpu-q4f16",
                graph="model_q4f16",
                resident_graph="model_q4f16_resident",
                activation_dtype="float16",
                features=("shader-f16",),
            ),
            replace(
                _WEBGPU_Q4,
                name="webgpu-q8",
                graph="model_quantized",
                resident_graph="model_quantized_resident",
                **_Q8,
            ),
            _WASM_Q4,
            replace(_WASM_Q4, name="wasm-q8", graph="model_quantized_wasm", **_Q8),
        )
    }
)


def find_targets(
    names: Iterable[str],
    *,
    head_bits: int | None = None,
    rounding: RoundingMethod = "search",
) -> tuple[Target, ...]:
    """Look targets up, in order, each once; settings take the place of their own.

    Args:
        names: what to look for.
        head_bits: width for the output head and the embedding; None for the target's.
        rounding: how scales are chosen where we quantise.

    Raises:
        UnknownTarget: a name is not in :data:`TARGETS`.
    """
    found: dict[str, Target] = {}
    for name in names:
        if name not in TARGETS:
            raise UnknownTarget(name)
        target = TARGETS[name]
        found[name] = replace(target, head_bits=head_bits or target.head_bits, rounding=rounding)
    return tuple(found.values())
