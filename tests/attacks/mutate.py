"""Turns a valid input into a hostile one: as JSON, by its structure, or as bytes.

Everything is drawn from the generator that is passed in, so that a seed gives the same
mutants on every machine.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from random import Random
from typing import Any


class Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs: unlike a dict, it can hold a key twice."""


class Raw(str):
    """Text that is written into the JSON as it is."""

    __slots__ = ()


#: Values that stand where something else belongs.
STRANGERS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 31, 33, 127, 255, 256, 65_535, 2**24, 2**24 + 1),
    *(2**31 - 1, 2**31, 2**32, 2**48, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30)),
    *(0.0, -0.0, 0.5, 1e-320, 1e38, 1e308, -1e308),
    *map(Raw, ("1e999", "NaN", "-Infinity", "9" * 5000, "01", "1.5e", "nul", "'x'")),
    *("", " ", ".", "..", "/", "\0", "a\0b", "a\nb", "\x1b[31m", "ـ" * 300, "x" * 5000),
    *("../../../etc/passwd", "/etc/passwd", "model.safetensors", "config.json"),
    *("pytorch_model.bin", "F32", "F16", "I8", "U8", "I64", "BOOL", "F8_E4M3", "F4", "float16"),
    *("none", "nf4", "fp4", "int", "float", "group", "channel", "block", "tensor", "LORA", "all"),
    *("llama", "gemma3_text", "true", "128", "(a+)+$"),
    *([], Pairs(), [[]], [Pairs()], [0], [0, 0], [1, -1], [2**40, 2**40], [0] * 2000, ["x"] * 2000),
    *(Pairs([("", None)]), Pairs([("a", 1), ("a", 2)]), Raw('"\\ud800"')),
    *map(Raw, ("[" * 3000 + "]" * 3000, '{"a":' * 100_000, "[" * 200_000)),
)
#: Strange numbers, as bytes of a little-endian word.
_WORDS = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0xFFFF,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**63 - 1,
    2**64 - 1,
)


def parse(text: bytes) -> Any:
    """JSON with its objects as :class:`Pairs`."""
    return json.loads(text, object_pairs_hook=Pairs)


def write(value: Any) -> str:
    """The JSON text of ``value``, which may be none that a parser accepts."""
    match value:
        case Raw():
            return value
        case Pairs():
            return "{" + ", ".join(f"{json.dumps(k)}: {write(v)}" for k, v in value) + "}"
        case list():
            return "[" + ", ".join(write(each) for each in value) + "]"
        case _:
            return json.dumps(value)


def mutate_json(value: Any, random: Random) -> Any:
    """``value`` with one to three things changed in it, in place where it is a container."""
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return random.choice(STRANGERS)
        container, index = random.choice(places)
        random.choice(_CHANGES)(container, index, random, places)
    return value


def mutate_bytes(data: bytes, other: bytes, random: Random) -> bytes:
    """``data`` with one to four places damaged, or spliced with ``other``."""
    changed = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4))):
        # The interesting part of a binary file is its beginning.
        at = random.randrange(max(1, min(len(changed), random.choice((16, 64, 512, 1 << 20)))))
        length = random.choice((1, 1, 2, 4, 8, 64))
        match random.randrange(8):
            case 0:
                changed[at : at + 1] = bytes(
                    [changed[at] ^ 1 << random.randrange(8)] if changed else []
                )
            case 1:
                changed[at : at + 1] = random.randbytes(1)
            case 2:
                del changed[at : at + length]
            case 3:
                changed[at:at] = random.randbytes(length)
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                del changed[at:]
            case 6:
                word = random.choice(_WORDS).to_bytes(8, "little")[: random.choice((1, 2, 4, 8))]
                changed[at : at + len(word)] = word
            case _:
                start = random.randrange(max(1, len(other)))
                changed[at:] = other[start:]
    return bytes(changed)


def _places(value: Any) -> Any:
    """Every (container, index) below ``value``."""
    if isinstance(value, list):
        for index, entry in enumerate(value):
            yield value, index
            yield from _places(entry[1] if isinstance(value, Pairs) else entry)


Change = Callable[[Any, int, Random, list[tuple[Any, int]]], None]


def _get(container: Any, index: int) -> Any:
    return container[index][1] if isinstance(container, Pairs) else container[index]


def _set(container: Any, index: int, value: Any) -> None:
    container[index] = (container[index][0], value) if isinstance(container, Pairs) else value


def _replace(container: Any, index: int, random: Random, places: list[tuple[Any, int]]) -> None:
    del places
    _set(container, index, random.choice(STRANGERS))


def _remove(container: Any, index: int, random: Random, places: list[tuple[Any, int]]) -> None:
    del random, places
    del container[index]


def _double(container: Any, index: int, random: Random, places: list[tuple[Any, int]]) -> None:
    """An element twice; of an object, a key twice, the second time with another value."""
    container.insert(random.randrange(len(container) + 1), container[index])
    if random.random() < 0.5:
        _replace(container, index, random, places)


def _copy(container: Any, index: int, random: Random, places: list[tuple[Any, int]]) -> None:
    """A value from elsewhere in the document; by its text, so that no tree holds itself."""
    _set(container, index, Raw(write(_get(*random.choice(places)))))


def _swap(container: Any, index: int, random: Random, places: list[tuple[Any, int]]) -> None:
    del places
    other = random.randrange(len(container))
    first, second = _get(container, index), _get(container, other)
    _set(container, index, second)
    _set(container, other, first)


def _wrap(container: Any, index: int, random: Random, places: list[tuple[Any, int]]) -> None:
    del places
    value = _get(container, index)
    _set(container, index, random.choice(([value], Pairs([("a", value)]), write(value)[:2000])))


def _tweak(container: Any, index: int, random: Random, places: list[tuple[Any, int]]) -> None:
    """A number or a text that is almost right."""
    value = _get(container, index)
    if isinstance(value, bool) or value is None:
        _set(container, index, not value)
    elif isinstance(value, int | float):
        near = (value + 1, value - 1, -value, value * 2, value // 2, value * 2**32, float(value))
        _set(container, index, random.choice(near))
    elif isinstance(value, str) and not isinstance(value, Raw):
        _set(container, index, _misspell(value, random))
    else:
        _replace(container, index, random, places)


def _rename(container: Any, index: int, random: Random, places: list[tuple[Any, int]]) -> None:
    if not isinstance(container, Pairs):
        return _replace(container, index, random, places)
    key, value = container[index]
    keys = [each[0] for part, at in places if isinstance(part, Pairs) for each in [part[at]]]
    container[index] = (random.choice((_misspell(key, random), random.choice(keys))), value)
    return None


def _misspell(text: str, random: Random) -> str:
    at = random.randrange(len(text) + 1)
    inserted = random.choice(
        ("\0", "/", "../", ".", "x", "\n", "é", "\ud800", "9" * 30, "a" * 3000)
    )
    return random.choice(
        (text[:at], text[at:], text[:at] + inserted + text[at:], text.swapcase(), text + text)
    )


_CHANGES: tuple[Change, ...] = (
    _replace, _replace, _remove, _double, _copy, _swap, _wrap, _tweak, _tweak, _rename,
)  # fmt: skip
