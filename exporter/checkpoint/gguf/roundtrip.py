"""Whether a tokenizer gives back what it was given."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from types import MappingProxyType

from tokenizers import Tokenizer

from exporter.checkpoint.gguf.errors import TokenizerNotLossless

#: Pieces by kind; a text is a handful of one kind, so that every joint is tried.
_PIECES: MappingProxyType[str, tuple[str, ...]] = MappingProxyType(
    {
        "english": ("The", " quick", " fox's", " 1,024", "; isn't", ' "quoted"', " (so)", ".", "é"),
        "arabic": ("ال", "كِتَاب", " مدرسة", "ـــ", " ٣٤٥", "،", " لا", "ؤ", "\u200f", " نعم؟"),
        "emoji": ("😀", " 🚀", "👩‍👩‍👧", "👍🏽", "🇪🇬", "❤️", "1️⃣", " ok"),
        "code": (
            "def f(",
            "x_1",
            "):",
            "\n    ",
            "return ",
            "!=",
            "0xFF",
            "\t",
            "// ",
            "${a}",
            "};",
        ),
        "spaces": (" ", "  ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "a", "   b"),
    }
)
_TEXTS_PER_KIND = 200


def check_lossless(path: Path, tokenizer: Tokenizer) -> None:
    """Encode and decode a thousand texts of words, scripts, emoji, code and spaces.

    Raises:
        TokenizerNotLossless: one came back changed; names ``path`` and the text.
    """
    for text in _texts():
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        returned = tokenizer.decode(ids, skip_special_tokens=False)
        if returned != text:
            raise TokenizerNotLossless(path, text, returned)


def _texts() -> Iterator[str]:
    """The same thousand texts every time."""
    dice = random.Random(2)  # noqa: S311 - variety, not secrecy
    for pieces in _PIECES.values():
        for _ in range(_TEXTS_PER_KIND):
            yield "".join(dice.choices(pieces, k=dice.randint(1, 12)))
