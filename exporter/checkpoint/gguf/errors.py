"""What can be wrong with a GGUF file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from manifests.errors import BadInput


class UnreadableGguf(BadInput):
    """A GGUF file that is damaged, or contradicts itself."""

    code = "gguf-unreadable"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: {reason}",
            "the file is damaged, cut short or not a model: make or copy it again",
        )


class UnknownGgufTokenizer(BadInput):
    """A tokenizer of which it is not known what llama.cpp does with it."""

    code = "gguf-tokenizer-unknown"

    def __init__(self, path: Path, what: str, known: Iterable[str]) -> None:
        super().__init__(
            f"{path}: no tokenizer can be rebuilt from {what}",
            f"known: {', '.join(known)}; for another give the checkpoint that the GGUF was made of",
        )


class UnsupportedGguf(BadInput):
    """Something in a GGUF file that is understood, but not supported."""

    code = "gguf-unsupported"

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what} is not supported", "give the checkpoint that the GGUF was made of"
        )


class TokenizerNotLossless(BadInput):
    """A rebuilt tokenizer does not give a text back."""

    code = "tokenizer-not-lossless"

    def __init__(self, path: Path, text: str, returned: str) -> None:
        super().__init__(
            f"{path}: the tokenizer turns {text!r} into {returned!r}",
            "the vocabulary, its pre-tokenizer or its decoder is wrong: see tokenizer.json",
        )
