"""The reference, checked against the bundle, with its logits read row by row."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from manifests.bundle import Manifest
from manifests.errors import BadDocument, BadInput, NotFound
from manifests.reference import Answers, Reference


class ReferenceMismatch(BadInput):
    """The reference answers for another checkpoint, tokenizer or set of weights."""

    code = "reference-mismatch"

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: was not made for this bundle: {what}",
            "write it again with 'tabwright reference' for this checkpoint and bundle",
        )


@dataclass(frozen=True)
class OpenReference:
    """A reference that belongs to the bundle, and where its logits lie."""

    document: Reference
    logits_path: Path

    def answers(self, weights: str) -> Answers:
        """PyTorch's answers with the bundle's weight set of that name."""
        return self.document.answers[weights]

    @contextmanager
    def logits(self) -> Iterator[Any]:
        """The logits file; ``get_slice(name)[first:last]`` reads those rows only.

        Raises:
            BadDocument: it is not a safetensors file.
        """
        try:
            with safe_open(self.logits_path, framework="numpy") as file:
                yield file
        except SafetensorError as error:
            raise BadDocument(self.logits_path, "logits file", str(error)) from None


def open_reference(path: Path, manifest: Manifest, targets: tuple[str, ...]) -> OpenReference:
    """Read a reference and make sure that it answers for these targets of this bundle.

    Raises:
        NotFound, BadDocument: the reference or its logits cannot be read.
        ReferenceMismatch: a digest differs; says which.
    """
    document = Reference.load(path)
    if document.source_digest != manifest.source.digest:
        raise ReferenceMismatch(path, "the checkpoint differs")
    files = {file.path: file for file in manifest.files}
    if document.tokenizer_digest != files[manifest.tokenizer].sha256:
        raise ReferenceMismatch(path, "the tokenizer differs")
    for name in {manifest.targets[target].weights for target in targets}:
        answers = document.answers.get(name)
        if answers is None or answers.weights_digest != manifest.weights[name].digest:
            raise ReferenceMismatch(path, f"the weights '{name}' differ")
        if missing := [text.name for text in document.scored if text.name not in answers.logits]:
            raise BadDocument(path, "reference", f"no logits for '{missing[0]}'")
    logits = path.parent / document.logits_file
    if logits.parent != path.parent or not logits.is_file():
        raise NotFound(logits, "logits file beside the reference")
    with logits.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != document.logits_sha256:
            raise ReferenceMismatch(path, f"{logits.name} was changed")
    return OpenReference(document, logits)
