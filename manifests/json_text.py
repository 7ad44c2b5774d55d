"""JSON whose texts are Unicode: Python's own reader also takes halves of surrogate pairs."""

from __future__ import annotations

import json
from typing import Any


def parse_line(line: str | bytes) -> Any:
    """The value of a line of JSON Lines.

    Raises:
        ValueError, RecursionError: it is not JSON, or a text in it is not Unicode.
    """
    value = json.loads(line)
    refuse_half_pairs(value)
    return value


def refuse_half_pairs(value: Any) -> None:
    """Refuse half of a surrogate pair, which no file in UTF-8 holds and no tokenizer takes.

    Raises:
        ValueError: there is one in a text or a key of ``value``.
    """
    json.dumps(value, ensure_ascii=False).encode()
