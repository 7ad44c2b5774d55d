"""Units of the metrics, and how a value in each is written for a person."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from types import MappingProxyType
from typing import Literal

Unit = Literal[
    "bytes",
    "ms",
    "tokens/s",
    "characters/s",
    "words/s",
    "bytes/s",
    "calls",
    "share",
    "ratio",
    "perplexity",
    "logits",
    "nats",
    "positions",
    "messages",
    "count",
]

#: A decimal point with zeros only after it, or the zeros that end a fraction.
_TAIL = re.compile(r"\.0+(?!\d)|(?<=\.)(\d*[1-9])0+(?!\d)")


def _digits(value: float, significant: int = 3) -> str:
    """``significant`` digits without an exponent; integers in full."""
    if value == 0:
        return "0"
    decimals = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def _bytes(value: float) -> str:
    for name, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(value) >= size:
            return f"{_digits(value / size, 4)} {name}"
    return f"{value:,.0f} B"


def _milliseconds(value: float) -> str:
    return f"{_digits(value / 1000)} s" if abs(value) >= 1000 else f"{_digits(value)} ms"


def _share(value: float) -> str:
    # 0.99999 must not be read as 1: a single disagreement is what a share is there to show.
    return ">0.9999" if 0.99995 <= value < 1 else f"{value:.4f}"


def _small(value: float) -> str:
    return f"{value:.3g}".replace("e-0", "e-")


_WRITERS: MappingProxyType[Unit, Callable[[float], str]] = MappingProxyType(
    {
        "bytes": _bytes,
        "ms": _milliseconds,
        "tokens/s": lambda value: f"{_digits(value)} tok/s",
        "characters/s": lambda value: f"{_digits(value)} chars/s",
        "words/s": lambda value: f"{_digits(value)} words/s",
        "bytes/s": lambda value: f"{_bytes(value)}/s",
        "calls": _digits,
        "share": _share,
        "ratio": lambda value: f"{value:.4f}",
        "perplexity": lambda value: f"{value:,.3f}",
        "logits": _small,
        "nats": lambda value: f"{_small(value)} nats",
        "positions": lambda value: f"{value:,.0f}",
        "messages": lambda value: f"{value:,.0f}",
        "count": lambda value: f"{value:,.0f}",
    }
)


def show(value: float, unit: Unit) -> str:
    """Write ``value`` of ``unit`` for a person; bytes are decimal (1 MB = 10^6 bytes)."""
    if math.isnan(value):
        return "not a number"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return _WRITERS[unit](value)


def show_round(value: float, unit: Unit) -> str:
    """As :func:`show`, without zeros that say nothing: for limits and axes."""
    return _TAIL.sub(r"\1", show(value, unit))
