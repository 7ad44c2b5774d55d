"""JSON inside of other files, taken out to be mutated and put back."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from tests.attacks.binary import read_gguf, read_onnx, write_gguf, write_onnx
from tests.attacks.mutate import Pairs, Raw, parse, write

#: Bytes of a value by the type's name in a header.
_WIDTHS = {
    **dict.fromkeys(("F64", "I64"), 8),
    **dict.fromkeys(("F32", "I32"), 4),
    **dict.fromkeys(("F16", "BF16", "I16"), 2),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F4"), 1),
}


@dataclass(frozen=True)
class Document:
    """JSON inside of a file's bytes, and how another text is put in its place."""

    read: Callable[[bytes], Any]
    replace: Callable[[bytes, str], bytes]


def _header_end(data: bytes) -> int:
    return 8 + int(struct.unpack("<Q", data[:8])[0])


def _replace_header(data: bytes, text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded + data[_header_end(data) :]


def _read_header(data: bytes) -> Any:
    return parse(data[8 : _header_end(data)])


def _replace_whole(data: bytes, text: str) -> bytes:
    del data
    return text.encode()


def _read_scheme(data: bytes) -> Any:
    return dict(parse(data))["quantization_config"]


def _replace_scheme(data: bytes, text: str) -> bytes:
    config = dict(parse(data)) | {"quantization_config": Raw(text)}
    return write(Pairs(config.items())).encode()


def _state_at(data: bytes) -> tuple[dict[str, Any], str, int, int]:
    header = json.loads(data[8 : _header_end(data)])
    name = next(name for name in header if "quant_state" in name)
    begin, end = header[name]["data_offsets"]
    return header, name, _header_end(data) + begin, _header_end(data) + end


def _read_state(data: bytes) -> Any:
    _, _, begin, end = _state_at(data)
    return parse(data[begin:end])


def _replace_state(data: bytes, text: str) -> bytes:
    """The state is the file's last tensor, so that only its own entry changes."""
    header, name, begin, _ = _state_at(data)
    encoded = text.encode()
    entry = header[name]
    entry["shape"] = [len(encoded)]
    entry["data_offsets"][1] = entry["data_offsets"][0] + len(encoded)
    return _replace_header(data[:begin] + encoded, json.dumps(header))


def _read_tensors(data: bytes) -> Any:
    """Type and shape of every tensor, and null for the bytes that it has."""
    header = _read_header(data)
    return Pairs(
        (name, [dict(entry)["dtype"], dict(entry)["shape"], None]) for name, entry in header
    )


def _replace_tensors(data: bytes, text: str) -> bytes:
    """Lay tensors out anew, so that the header is right whatever they have become."""
    old = {name: dict(entry)["data_offsets"] for name, entry in _read_header(data)}
    end = _header_end(data)
    header, body = Pairs(), b""
    for name, (dtype, shape, fill) in parse(text.encode()):
        begin, stop = old.get(name, (0, 64))
        if not all(type(n) is int for n in shape):
            raise TypeError("no shape that can be laid out")
        length = prod(shape) * _WIDTHS[dtype]
        if length > 1 << 20:
            raise ValueError("more than is worth writing")
        pattern = _pattern(fill, dtype) or data[end + begin : end + stop] or b"\0"
        body += (pattern * (length // len(pattern) + 1))[:length]
        offsets = [len(body) - length, len(body)]
        entry = Pairs([("dtype", dtype), ("shape", shape), ("data_offsets", offsets)])
        header.append((name, entry))
    encoded = write(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + body


def _pattern(fill: Any, dtype: str) -> bytes:
    """The bytes that a tensor is filled with; none for those that it has."""
    match fill:
        case bool() | None:
            return b""
        case float() if dtype in {"F16", "F32", "F64"}:
            with np.errstate(over="ignore"):
                return np.array(fill, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).tobytes()
        case int():
            return (fill % 2**64).to_bytes(8, "little")
        case _:
            return write(fill).encode()[:1000]


WHOLE = Document(parse, _replace_whole)
HEADER = Document(_read_header, _replace_header)
SCHEME = Document(_read_scheme, _replace_scheme)
TENSORS = Document(_read_tensors, _replace_tensors)
STATE = Document(_read_state, _replace_state)
GGUF = Document(read_gguf, write_gguf)
ONNX = Document(read_onnx, write_onnx)
