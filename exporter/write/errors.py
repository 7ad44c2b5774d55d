"""What can be wrong with an output or a bundle on disk."""

from __future__ import annotations

from pathlib import Path

from manifests.errors import EXIT_USAGE, BadInput, EnvironmentProblem, TabwrightError


class OutputExists(TabwrightError):
    """The output is there already."""

    code = "output-exists"
    exit_status = EXIT_USAGE

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: exists already", "choose another path, or add --force")


class NotReplaceable(BadInput):
    """``--force`` on something that is not a bundle."""

    code = "not-replaceable"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: exists and is no bundle, so --force does not delete it",
            "remove it yourself, or choose another path",
        )


class TensorTooLarge(BadInput):
    """A tensor that fits no shard of the target."""

    code = "tensor-too-large"

    def __init__(self, name: str, size: int, limit: int) -> None:
        super().__init__(
            f"tensor {name} takes {size} bytes, more than a shard's {limit}",
            "choose a target with fewer bits",
        )


class PageNotBuilt(EnvironmentProblem):
    """The page that every bundle carries is not there: a source tree that was not built."""

    code = "page-not-built"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: the page was not built", "run 'make setup' in the source tree")


class FileMissing(BadInput):
    """A file that the manifest lists is not there."""

    code = "file-missing"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: listed in the manifest but missing", "copy the whole bundle")


class FileChanged(BadInput):
    """A file's bytes are not those that were sealed."""

    code = "file-changed"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}", "the file is damaged or was replaced: export again")


class FileUnlisted(BadInput):
    """A file that the manifest does not know."""

    code = "file-unlisted"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: not in the manifest", "remove it: a bundle holds nothing else")
