"""Why optimum wrote no graph."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import BadInput, EnvironmentProblem

_ELSEWHERE = (
    "run 'optimum-cli export onnx --task text-generation-with-past' elsewhere, and export "
    "the folder that it writes"
)


class OptimumUnavailable(EnvironmentProblem):
    """Its environment cannot be made: mostly for want of a network."""

    code = "optimum-unavailable"

    def __init__(self, reason: str) -> None:
        super().__init__(
            f"optimum's environment cannot be made: {reason}",
            f"give pip a package index and try again, or {_ELSEWHERE}",
        )


class OptimumFailed(BadInput):
    """optimum's exporter gave up."""

    code = "optimum-failed"

    def __init__(self, checkpoint: Path, reason: str) -> None:
        super().__init__(
            f"{checkpoint}: optimum's exporter ended without a graph: {reason}",
            "see whether optimum-onnx knows the architecture; export an ONNX graph that you have "
            "by giving its folder",
        )


class OptimumReadsFloats(BadInput):
    """A checkpoint that optimum cannot load."""

    code = "optimum-reads-floats"

    def __init__(self, checkpoint: Path, kept_as: str) -> None:
        super().__init__(
            f"{checkpoint}: {kept_as}, and optimum reads safetensors in floats only",
            "leave --graph out, or give the checkpoint as it was before it was compressed",
        )
