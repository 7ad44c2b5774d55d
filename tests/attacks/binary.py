"""Binary formats as JSON and back, so that they are mutated by their structure.

The way back takes what the format forbids: that is its purpose.
"""

from __future__ import annotations

import json
import struct
from typing import Any

from google.protobuf.json_format import MessageToJson, Parse, ParseError
from google.protobuf.message import DecodeError
from onnx import ModelProto

from tests.attacks.mutate import parse

#: Numbers of GGUF by their type, as struct has them.
_NUMBERS = "BbHhIif?xxQqd"
_STRING, _ARRAY = 8, 9
_ALIGNMENT = 32


def read_gguf(data: bytes) -> Any:
    """``[version, tensor count, pair count, pairs, tensors]``; null counts are the true ones."""
    cursor = _Cursor(data)
    magic, version, tensors, pairs = cursor.take("<4sIQQ")
    if magic != b"GGUF":
        raise ValueError("no GGUF")
    return [
        version,
        None,
        None,
        [[cursor.text(), *cursor.value()] for _ in range(pairs)],
        [
            [cursor.text(), cursor.many("Q", cursor.one("I")), cursor.one("I"), cursor.one("Q")]
            for _ in range(tensors)
        ],
    ]


def write_gguf(data: bytes, text: str) -> bytes:
    """The file of the document ``text``, with the tensors' bytes of ``data``."""
    version, tensor_count, pair_count, pairs, tensors = parse(text.encode())
    header = struct.pack(
        "<4sIQQ",
        b"GGUF",
        version % 2**32,
        (len(tensors) if tensor_count is None else tensor_count) % 2**64,
        (len(pairs) if pair_count is None else pair_count) % 2**64,
    )
    header += b"".join(_text(key) + _value(kind, value) for key, kind, value in pairs)
    for name, shape, kind, offset in tensors:
        numbers = (len(shape), *(_bits(n, 64) for n in shape), _bits(kind, 32), _bits(offset, 64))
        header += _text(name) + struct.pack(f"<I{len(shape)}QIQ", *numbers)
    return header + bytes(-len(header) % _ALIGNMENT) + _gguf_body(data)


def _gguf_body(data: bytes) -> bytes:
    if not data:
        return b""
    cursor = _Cursor(data)
    _, _, tensors, pairs = cursor.take("<4sIQQ")
    for _ in range(pairs):
        cursor.text()
        cursor.value()
    for _ in range(tensors):
        cursor.text()
        cursor.many("Q", cursor.one("I"))
        cursor.take("<IQ")
    return data[cursor.at + -cursor.at % _ALIGNMENT :]


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, form: str) -> tuple[Any, ...]:
        values = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return values

    def one(self, form: str) -> Any:
        return self.take(f"<{form}")[0]

    def many(self, form: str, count: int) -> list[Any]:
        return list(self.take(f"<{count}{form}"))

    def text(self) -> str:
        (value,) = self.take(f"<{self.one('Q')}s")
        text: str = value.decode()
        return text

    def value(self) -> tuple[int, Any]:
        """Its type, and the value; of an array, ``[inner type, count or null, values]``."""
        kind = self.one("I")
        if kind != _ARRAY:
            return kind, self.text() if kind == _STRING else self.one(_NUMBERS[kind])
        inner, count = self.take("<IQ")
        texts = [self.text() for _ in range(count)] if inner == _STRING else None
        return kind, [inner, None, texts or self.many(_NUMBERS[inner], count)]


def _text(value: str) -> bytes:
    encoded = value.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(encoded)) + encoded


def _value(kind: int, value: Any) -> bytes:
    head = struct.pack("<I", _bits(kind, 32))
    if kind != _ARRAY:
        return head + _plain(kind, value)
    inner, count, values = value
    count = len(values) if count is None else count
    return (
        head
        + struct.pack("<IQ", _bits(inner, 32), _bits(count, 64))
        + b"".join(_plain(inner, each) for each in values)
    )


def _plain(kind: int, value: Any) -> bytes:
    if kind == _STRING:
        return _text(value if isinstance(value, str) else json.dumps(value))
    form = _NUMBERS[kind]
    width = 8 * struct.calcsize(form)
    if form in "fd?":
        return struct.pack(f"<{form}", value)
    return _bits(int(value), width).to_bytes(width // 8, "little")


def _bits(value: int, width: int) -> int:
    return int(value) % (1 << width)


def read_onnx(data: bytes) -> Any:
    """protobuf's own JSON of a model."""
    try:
        model = ModelProto.FromString(data)
    except DecodeError as error:
        raise ValueError("no model") from error
    return parse(MessageToJson(model).encode())


def write_onnx(data: bytes, text: str) -> bytes:
    """The model of the JSON ``text``, as far as protobuf takes it."""
    del data
    try:
        model = Parse(text, ModelProto(), ignore_unknown_fields=True)
    except ParseError as error:
        raise ValueError("no JSON of a model") from error
    encoded: bytes = model.SerializeToString()
    return encoded
