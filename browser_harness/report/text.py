"""Text from outside, made harmless where escaping alone is not enough."""

from __future__ import annotations

import re

# What XML 1.0 cannot hold even escaped, and the control characters with which a
# name could move a terminal's cursor or repaint what stands above it.
_CONTROL = re.compile("[^\t\n\u0020-\u007e\u00a0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def printable(text: str) -> str:
    """``text`` with each control character and lone surrogate shown as U+FFFD."""
    return _CONTROL.sub("\ufffd", text)
