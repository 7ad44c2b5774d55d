"""The targets, declared."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypedDict

from manifests.errors import EXIT_USAGE, TabwrightError

MIB = 1 << 20

Matmul = Literal["matmul-nbits", "folded-dequantize"]
Gather = Literal["gather-block-quantized", "folded-dequantize"]


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
        graph: file stem under ``onnx/``; the suffixes are those that
            transformers.js looks for.
        matmul: ``matmul-nbits`` keeps codes in memory (com.microsoft
            MatMulNBits); ``folded-dequantize`` lets the runtime fold a
            DequantizeLinear to floats while it loads.
        max_shard_bytes: shards stay below it; far below 4 GiB, where wasm32
            runtimes read wrong offsets.
        features, limits: what the GPU device must offer.
        session_config: onnxruntime session configuration entries.
        max_folded_bytes: largest float weights that fit the 4 GiB wasm heap
            beside the rest; ``None`` where weights are not folded.
    """

    name: str
    summary: str
    execution_provider: Literal["webgpu", "wasm"]
    weight_set: str
    bits: int
    head_bits: int
    graph: str
    activation_dtype: Literal["float16", "float32"]
    matmul: Matmul
    gather: Gather
    block_size: int = 32
    max_shard_bytes: int = 512 * MIB
    features: tuple[str, ...] = ()
    limits: MappingProxyType[str, int] = field(default_factory=lambda: MappingProxyType({}))
    session_config: MappingProxyType[str, str] = field(default_factory=lambda: MappingProxyType({}))
    max_folded_bytes: int | None = None

    def __post_init__(self) -> None:
        """Refuse contradictions, and say which."""
        if self.execution_provider == "wasm" and (self.features or self.limits):
            raise ValueError(f"{self.name}: a wasm target needs no GPU features or limits")
        if self.activation_dtype == "float16" and "shader-f16" not in self.features:
            raise ValueError(f"{self.name}: float16 activations need the feature shader-f16")
        if self.matmul == "folded-dequantize" and self.max_folded_bytes is None:
            raise ValueError(f"{self.name}: folded weights need max_folded_bytes")
        if {self.bits, self.head_bits} - {4, 8}:
            raise ValueError(f"{self.name}: codes are 4 or 8 bits wide")


class _Wasm(TypedDict):
    """What the CPU targets share."""

    execution_provider: Literal["wasm"]
    head_bits: int
    activation_dtype: Literal["float32"]
    matmul: Matmul
    gather: Gather
    session_config: MappingProxyType[str, str]
    max_folded_bytes: int


_WEBGPU_LIMITS = MappingProxyType(
    # WebGPU's defaults are 256 MiB, 128 MiB and 8.  A large head is one binding, and
    # onnxruntime-web's fused q/k/v kernel binds nine buffers.
    {
        "maxBufferSize": 1024 * MIB,
        "maxStorageBufferBindingSize": 1024 * MIB,
        "maxStorageBuffersPerShaderStage": 9,
    }
)

_WASM: _Wasm = {
    "execution_provider": "wasm",
    "head_bits": 8,
    "activation_dtype": "float32",
    "matmul": "folded-dequantize",
    "gather": "folded-dequantize",
    # A folded graph must not be turned back into quantised kernels.
    "session_config": MappingProxyType({"session.disable_quant_qdq": "1"}),
    "max_folded_bytes": 2560 * MIB,
}

TARGETS: MappingProxyType[str, Target] = MappingProxyType(
    {
        target.name: target
        for target in (
            Target(
                name="webgpu-q4",
                summary="4-bit weights, 32-bit activations: any WebGPU adapter",
                execution_provider="webgpu",
                weight_set="q4",
                bits=4,
                head_bits=8,
                graph="model_q4",
                activation_dtype="float32",
                matmul="matmul-nbits",
                gather="gather-block-quantized",
                limits=_WEBGPU_LIMITS,
            ),
            Target(
                name="webgpu-q4f16",
                summary="4-bit weights, 16-bit activations: adapters with shader-f16",
                execution_provider="webgpu",
                weight_set="q4",
                bits=4,
                head_bits=8,
                graph="model_q4f16",
                activation_dtype="float16",
                matmul="matmul-nbits",
                gather="gather-block-quantized",
                features=("shader-f16",),
                limits=_WEBGPU_LIMITS,
            ),
            Target(
                name="webgpu-q8",
                summary="8-bit weights, 32-bit activations: any WebGPU adapter",
                execution_provider="webgpu",
                weight_set="q8",
                bits=8,
                head_bits=8,
                graph="model_quantized",
                activation_dtype="float32",
                matmul="matmul-nbits",
                gather="gather-block-quantized",
                limits=_WEBGPU_LIMITS,
            ),
            Target(
                name="wasm-q4",
                summary="4 bits on the wire, floats in memory: any CPU, no GPU needed",
                weight_set="q4",
                bits=4,
                graph="model_q4_wasm",
                **_WASM,
            ),
            Target(
                name="wasm-q8",
                summary="8 bits on the wire, floats in memory: any CPU, no GPU needed",
                weight_set="q8",
                bits=8,
                graph="model_quantized_wasm",
                **_WASM,
            ),
        )
    }
)


def find_targets(names: Iterable[str]) -> tuple[Target, ...]:
    """Look targets up, in order, each once.

    Raises:
        UnknownTarget: a name is not in :data:`TARGETS`.
    """
    found: dict[str, Target] = {}
    for name in names:
        if name not in TARGETS:
            raise UnknownTarget(name)
        found[name] = TARGETS[name]
    return tuple(found.values())
