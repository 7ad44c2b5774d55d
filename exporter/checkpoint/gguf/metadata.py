"""A GGUF file's key-value pairs, each asked for by the type that it must have."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from exporter.checkpoint.gguf.errors import UnreadableGguf

T = TypeVar("T")
_NOTHING: Any = object()


class Metadata:
    """The pairs of the file at ``path``.

    Every getter raises :class:`UnreadableGguf` when a key has another type, or is not
    there and no default is given.
    """

    def __init__(self, path: Path, values: Mapping[str, Any]) -> None:
        self.path = path
        self._values = values

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str, default: str = _NOTHING) -> str:
        """A string."""
        return self._get(key, str, default)

    def integer(self, key: str, default: int = _NOTHING, *, least: int = 0) -> int:
        """An integer of any width that is not less than ``least``."""
        value = self._get(key, int, default)
        if value < least:
            raise UnreadableGguf(self.path, f"{key} is {value}")
        return value

    def token(self, key: str, default: int = _NOTHING) -> int:
        """The id of a token of the vocabulary."""
        value = self.integer(key, default)
        if value >= len(self.texts("tokenizer.ggml.tokens")):
            raise UnreadableGguf(self.path, f"{key} is {value}, no token's id")
        return value

    def number(self, key: str, default: float = _NOTHING) -> float:
        """A float that is finite.

        GGUF keeps float32; six digits give back the number that a config said.
        """
        value = self._get(key, float, default)
        if not isfinite(value):
            raise UnreadableGguf(self.path, f"{key} is {value}")
        return float(f"{value:.6g}")

    def flag(self, key: str, *, default: bool) -> bool:
        """A truth value."""
        return self._get(key, bool, default)

    def texts(self, key: str) -> list[str]:
        """An array of strings."""
        return self._list(key, str, _NOTHING)

    def integers(self, key: str, default: list[int] = _NOTHING) -> list[int]:
        """An array of integers."""
        return self._list(key, int, default)

    def floats(self, key: str) -> list[float]:
        """An array of floats."""
        return self._list(key, float, _NOTHING)

    def _list(self, key: str, kind: type[T], default: list[T]) -> list[T]:
        values: list[T] = self._get(key, list, default)
        if any(type(value) is not kind for value in values):
            raise UnreadableGguf(self.path, f"{key} is no array of {kind.__name__}")
        return values

    def _get(self, key: str, kind: type[T], default: T) -> T:
        value = self._values.get(key, default)
        if value is _NOTHING:
            raise UnreadableGguf(self.path, f"{key} is missing")
        if type(value) is not kind:
            raise UnreadableGguf(self.path, f"{key} is {value!r:.40}, no {kind.__name__}")
        assert isinstance(value, kind)
        return value
