"""Text from outside, made harmless where escaping alone is not enough."""

from __future__ import annotations

import re
import unicodedata

# What XML 1.0 cannot hold even escaped, and the control characters with which a
# name could move a terminal's cursor or repaint what stands above it.
_CONTROL = re.compile("[^\t\n\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
#: Embeddings, overrides and isolates: with one left open, a name would turn round what follows.
_TURNS = re.compile("[\u202a-\u202e\u2066-\u2069]")
_FIRST_STRONG_ISOLATE, _POP = "\u2068", "\u2069"
_RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})


def printable(text: str) -> str:
    """``text`` with each control character and lone surrogate shown as U+FFFD."""
    return _CONTROL.sub("\ufffd", text)


def isolated(text: str) -> str:
    """``text`` that reads in its own direction and leaves its neighbours in theirs.

    HTML has <bdi> for it; Markdown and terminals have the characters of UAX #9.  Text
    without a right-to-left character stays as it is, but for what would turn it round.
    """
    calm = _TURNS.sub("", text)
    if not any(unicodedata.bidirectional(character) in _RIGHT_TO_LEFT for character in calm):
        return calm
    return f"{_FIRST_STRONG_ISOLATE}{calm}{_POP}"
