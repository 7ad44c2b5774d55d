"""JSON as RFC 8259 has it, read with a bound on what it may cost.

Python's own reader takes more: NaN, keys that stand twice, halves of surrogate pairs.
Whatever reads the file next, in a browser or in another language, would refuse it or
choose differently.
"""

from __future__ import annotations

import json
from math import isfinite
from typing import Any, NoReturn

from manifests.json_text import refuse_half_pairs

#: Entries of 70,000 tensors; a value takes some 100 bytes of memory and a microsecond.
MAX_VALUES = 1 << 19
#: A character takes up to four bytes of memory.
MAX_BYTES = 8 << 20


def parse(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: says what is wrong with it.
    """
    if len(data) > MAX_BYTES or count_values(data) > MAX_VALUES:
        raise ValueError(f"more than {MAX_BYTES} bytes or {MAX_VALUES} values")
    try:
        value = json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if b"\\ud" in data or b"\\uD" in data:
        refuse_half_pairs(value)
    return value


def count_values(data: bytes) -> int:
    """An upper bound on the values in a JSON text, without reading it."""
    return data.count(b",") + data.count(b"[") + data.count(b"{") + 1


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise ValueError(f"{text:.20} is too large a number")
    return value
