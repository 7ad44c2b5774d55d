"""A tokenizer is opened once before it is sealed into a bundle."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from manifests.errors import BadInput


class TokenizerUnreadable(BadInput):
    """tokenizer.json is no tokenizer of the tokenizers library."""

    code = "tokenizer-unreadable"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: not a tokenizer: {reason}",
            "save it again with AutoTokenizer.from_pretrained(...).save_pretrained(...)",
        )


def check_tokenizer(path: Path) -> None:
    """Open the file at ``path`` as the page and transformers will.

    Raises:
        TokenizerUnreadable: it cannot be opened.
    """
    try:
        Tokenizer.from_file(str(path))
    except Exception as error:  # noqa: BLE001 - the library raises nothing more exact
        raise TokenizerUnreadable(path, str(error)) from None
