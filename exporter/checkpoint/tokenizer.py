"""A tokenizer is opened once before it is sealed into a bundle."""

from __future__ import annotations

from pathlib import Path

from tokenizers import Tokenizer

from exporter.checkpoint.folder import Checkpoint
from exporter.checkpoint.panics import panics_caught
from exporter.checkpoint.strict_json import count_values
from manifests.errors import BadInput

_NAME = "tokenizer.json"
#: Twice as many as the largest vocabulary with its merges has; the library takes some 64
#: bytes for each while it reads.
_MAX_VALUES = 4 << 20


class TokenizerUnreadable(BadInput):
    """tokenizer.json is no tokenizer of the tokenizers library."""

    code = "tokenizer-unreadable"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: not a tokenizer: {reason}",
            "save it again with AutoTokenizer.from_pretrained(...).save_pretrained(...)",
        )


def open_tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    """Open the tokenizer of ``checkpoint`` as the page and transformers will.

    Raises:
        TokenizerUnreadable: it cannot be opened.
    """
    path, text = checkpoint.path / _NAME, checkpoint.documents.read(_NAME) or b""
    if count_values(text) > _MAX_VALUES:
        raise TokenizerUnreadable(path, f"more than {_MAX_VALUES} values")
    try:
        with panics_caught():
            return Tokenizer.from_buffer(text)
    except Exception as error:  # noqa: BLE001 - the library raises nothing more exact
        raise TokenizerUnreadable(path, str(error)) from None
