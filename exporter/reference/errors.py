"""Why a reference cannot be made."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import EXIT_USAGE, BadInput, EnvironmentProblem, TabwrightError


class ReferenceMisplaced(TabwrightError):
    """A reference would be written over something else."""

    code = "reference-misplaced"
    exit_status = EXIT_USAGE

    def __init__(self, out: Path, reason: str) -> None:
        super().__init__(
            f"{out}: no reference can be written there: {reason}",
            "choose a path like reference.json, with reference.safetensors free for its logits",
        )


class CheckpointMismatch(BadInput):
    """The bundle was made from another checkpoint."""

    code = "checkpoint-mismatch"

    def __init__(self, checkpoint: Path, bundle: Path) -> None:
        super().__init__(
            f"{checkpoint}: not the checkpoint that {bundle} was exported from",
            "give the checkpoint named in the bundle's manifest, or export this one again",
        )


class OriginalMismatch(BadInput):
    """The checkpoint was not compressed from this model."""

    code = "original-mismatch"

    def __init__(self, original: Path, reason: str) -> None:
        super().__init__(
            f"{original}: not what the checkpoint was compressed from: {reason}",
            "give the model that it was made of, with the tokenizer that it had then",
        )


class LedgerMismatch(BadInput):
    """A row of the bundle's ledger contradicts its shards or the architecture."""

    code = "ledger-mismatch"

    def __init__(self, bundle: Path, tensor: str, reason: str) -> None:
        super().__init__(f"{bundle}: tensor {tensor}: {reason}", "export the bundle again")


class ChatTemplateFailed(BadInput):
    """The checkpoint's chat template refuses a conversation of the suite."""

    code = "chat-template-failed"

    def __init__(self, checkpoint: Path, conversation: str, reason: str) -> None:
        super().__init__(
            f"{checkpoint}: the chat template refuses the conversation '{conversation}': {reason}",
            "correct chat_template.jinja",
        )


class NotRunnable(BadInput):
    """transformers has no causal language model for the checkpoint's config."""

    code = "not-runnable"

    def __init__(self, checkpoint: Path, architecture: str) -> None:
        super().__init__(
            f"{checkpoint}: transformers has no causal language model for '{architecture}'",
            "update transformers, or correct model_type in config.json",
        )


class MisreadByKernel(EnvironmentProblem):
    """The package that wrote a tensor gets it wrong on this device."""

    code = "misread-by-kernel"

    def __init__(self, checkpoint: Path, tensor: str, package: str) -> None:
        super().__init__(
            f"{checkpoint}: tensor {tensor}: {package}'s CPU kernel misreads blocks that do not "
            "end where rows do",
            "make the reference on a machine with CUDA",
        )


class NoCuda(EnvironmentProblem):
    """CUDA was asked for and torch finds no device."""

    code = "no-cuda"

    def __init__(self) -> None:
        super().__init__(
            "torch finds no CUDA device",
            "install the CUDA build of torch and a driver, or choose the device cpu",
        )


class OnnxOnCpu(EnvironmentProblem):
    """CUDA was asked for, and the reference of an ONNX graph runs on the CPU."""

    code = "onnx-on-cpu"

    def __init__(self, checkpoint: Path) -> None:
        super().__init__(
            f"{checkpoint}: the reference of an ONNX graph runs on the CPU only",
            "choose the device cpu or auto",
        )


class OutOfMemory(EnvironmentProblem):
    """The model does not fit."""

    code = "out-of-memory"

    def __init__(self, checkpoint: Path, device: str) -> None:
        super().__init__(
            f"{checkpoint}: not enough memory on {device} to run it in float32",
            "use a machine with more memory: the reference file can be judged on any other",
        )


class NativeFailed(EnvironmentProblem):
    """An engine that is installed does not run the bundle."""

    code = "native-failed"

    def __init__(self, bundle: Path, engine: str, reason: str) -> None:
        super().__init__(
            f"{bundle}: {engine} does not run it natively: {reason}",
            "leave --native out, or install the version that constraints.txt names",
        )
