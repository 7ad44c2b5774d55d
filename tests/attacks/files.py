"""Ways to damage the smallest valid inputs, and what must come of it."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from manifests.errors import TabwrightError
from tests.attacks.binary import read_gguf, write_gguf
from tests.attacks.documents import HEADER, Document
from tests.attacks.mutate import Pairs, parse, write
from tests.attacks.tiny import Files
from tests.attacks.walk import shapes_of, walk

Damage = Callable[[Path], object]
Case = tuple[Callable[[], Files], Damage, str]
#: Lies beside every checkpoint, under the name "secret".
SECRET = b"a file of somebody else"


def place(make: Callable[[], Files], folder: Path) -> Path:
    for name, data in make().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder.parent / "secret").write_bytes(SECRET)
    return folder


def write_file(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data)


def sparse(name: str, size: int) -> Damage:
    def damage(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.truncate(size)

    return damage


def link(name: str, target: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)

    return damage


def pipe(name: str) -> Damage:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return damage


def index(**weight_map: object) -> Damage:
    """Have an index in the single file's place, beside which it would not be read."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").unlink(missing_ok=True)
        text = json.dumps({"weight_map": weight_map})
        (folder / "model.safetensors.index.json").write_text(text)

    return damage


def header(change: Callable[[dict[str, Any]], object], name: str = "model.safetensors") -> Damage:
    """Change the header as Python's objects; the tensors' bytes stay."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        header = json.loads(write(HEADER.read(data)))
        change(header)
        (folder / name).write_bytes(HEADER.replace(data, json.dumps(header)))

    return damage


def offsets(tensor: str, begin: int, end: int) -> Damage:
    return header(lambda header: header[tensor].update(data_offsets=[begin, end]))


def raw_header(text: str) -> Damage:
    encoded = text.encode()
    return write_file("model.safetensors", struct.pack("<Q", len(encoded)) + encoded)


def doubled(name: str, document: Document) -> Damage:
    """Give the first key of a document a second time."""

    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        value = document.read(data)
        value.append(value[0])
        (folder / name).write_bytes(document.replace(data, write(value)))

    return damage


def text_of(name: str, document: Document, text: str) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(document.replace(data, text))

    return damage


def config(**changes: Any) -> Damage:
    """Changes in the text, so that they need be no JSON."""

    def damage(folder: Path) -> None:
        config = dict(parse((folder / "config.json").read_bytes())) | changes
        (folder / "config.json").write_text(write(Pairs(config.items())))

    return damage


def gguf(change: Callable[[list[Any]], object]) -> Damage:
    def damage(folder: Path) -> None:
        data = (folder / "model.gguf").read_bytes()
        document = read_gguf(data)
        change(document)
        (folder / "model.gguf").write_bytes(write_gguf(data, write(document)))

    return damage


def external(**entries: str) -> Damage:
    """Change where the ONNX graph says that its weight lies."""

    def damage(folder: Path) -> None:
        from onnx import ModelProto

        model = ModelProto.FromString((folder / "model.onnx").read_bytes())
        for entry in model.graph.initializer[0].external_data:
            entry.value = entries.get(entry.key, entry.value)
        (folder / "model.onnx").write_bytes(model.SerializeToString())

    return damage


@cache
def zip_bomb() -> bytes:
    """As torch saves, and 512 MiB once unpacked."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickle.dumps({"a": 1}))
        with file.open("archive/data/0", "w", force_zip64=True) as member:
            for _ in range(512):
                member.write(bytes(1 << 20))
    return packed.getvalue()


def only(name: str, data: Callable[[], bytes]) -> Damage:
    """Put ``name`` in the place of the safetensors file beside it."""

    def damage(folder: Path) -> None:
        path = folder / name
        (weights,) = path.parent.glob("*.safetensors")
        weights.unlink()
        path.write_bytes(data())

    return damage


def refused(case: Case, folder: Path) -> None:
    """Make the case's input in ``folder``; it is read before the damage, and not after."""
    make, damage, code = case
    place(make, folder)
    shapes = shapes_of(folder)
    walk(folder, shapes)
    damage(folder)
    with pytest.raises(TabwrightError) as caught:
        walk(folder, shapes)
    assert caught.value.code == code
    assert caught.value.next_step
    assert SECRET.decode() not in str(caught.value)
