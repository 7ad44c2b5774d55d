"""Our reader against the safetensors library's writer, and against hostile headers."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.numpy import save_file

from exporter.checkpoint.errors import PickleRefused, ShardCorrupt
from exporter.checkpoint.safetensors_file import open_safetensors
from manifests.errors import TabwrightError


def _file(path: Path, header: Any, body: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)
    return path


def _entry(begin: int, end: int, shape: list[Any], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    tensors: dict[str, NDArray[Any]] = {
        "a": rng.standard_normal((5, 7)).astype(np.float32),
        "b": rng.integers(-9, 9, (3,), dtype=np.int32),
        "c": rng.standard_normal((2, 3, 4)).astype(np.float16),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    opened = open_safetensors(tmp_path / "x.safetensors")
    assert set(opened) == set(tensors)
    for name, values in tensors.items():
        np.testing.assert_array_equal(opened[name].read(), values)
    np.testing.assert_array_equal(opened["a"].read_rows(2, 4), tensors["a"][2:4])


@pytest.mark.parametrize(
    ("header", "body"),
    [
        pytest.param(b"not json", b"", id="no-json"),
        pytest.param([], b"", id="no-object"),
        pytest.param({"a": {"dtype": "F32"}}, b"", id="no-shape"),
        pytest.param({"a": _entry(0, 4, [1], "F31")}, bytes(4), id="unknown-dtype"),
        pytest.param({"a": _entry(0, 4, [-1])}, bytes(4), id="negative-dimension"),
        pytest.param({"a": _entry(0, 4, [1 << 62, 1 << 62])}, bytes(4), id="huge-shape"),
        pytest.param({"a": _entry(0, 4, [True])}, bytes(4), id="boolean-dimension"),
        pytest.param({"a": _entry(0, 4, [1] * 99)}, bytes(4), id="deep-rank"),
        pytest.param({"a": _entry(0, 8, [1])}, bytes(8), id="length-against-shape"),
        pytest.param({"a": _entry(0, 8, [2])}, bytes(4), id="cut-short"),
        pytest.param({"a": _entry(0, 4, [1])}, bytes(8), id="bytes-left-over"),
        pytest.param({"a": _entry(4, 8, [1])}, bytes(8), id="gap"),
        pytest.param({"a": _entry(-4, 0, [1])}, bytes(4), id="before-the-body"),
        pytest.param({"a": _entry(0, 4, [1]), "b": _entry(0, 4, [1])}, bytes(4), id="overlap"),
        pytest.param(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"\0",
            id="duplicate-key",
        ),
        pytest.param(b"[" * 100_000, b"", id="deep-recursion"),
    ],
)
def test_refuses_a_header_that_lies(tmp_path: Path, header: Any, body: bytes) -> None:
    path = _file(tmp_path / "x.safetensors", header, body)
    with pytest.raises(ShardCorrupt, match=r"x\.safetensors"):
        open_safetensors(path)


@pytest.mark.parametrize("start", [b"", b"\1\2\3", struct.pack("<Q", 1 << 60)])
def test_refuses_a_file_without_a_header(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "x.safetensors").write_bytes(start)
    with pytest.raises(ShardCorrupt):
        open_safetensors(tmp_path / "x.safetensors")


@pytest.mark.parametrize("start", [b"\x80\x04\x95abcdefgh", b"PK\x03\x04abcdefgh"])
def test_refuses_a_pickle_by_content(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "model.safetensors").write_bytes(start)
    with pytest.raises(PickleRefused):
        open_safetensors(tmp_path / "model.safetensors")


@pytest.mark.parametrize("length", [0x0280, 0x0380, 0x0480, 0x0580])
def test_a_header_whose_length_looks_like_a_pickle_is_read(tmp_path: Path, length: int) -> None:
    text = json.dumps({"a": _entry(0, 4, [1])}).encode()
    path = _file(tmp_path / "x.safetensors", text.ljust(length), bytes(4))
    assert path.read_bytes().startswith(bytes([0x80, length >> 8]))
    assert open_safetensors(path)["a"].shape == (1,)


def test_a_file_cut_after_opening_is_told(tmp_path: Path) -> None:
    save_file({"a": np.zeros((64, 64), np.float32)}, tmp_path / "x.safetensors")
    tensor = open_safetensors(tmp_path / "x.safetensors")["a"]
    with (tmp_path / "x.safetensors").open("r+b") as file:
        file.truncate(1000)
    with pytest.raises(ShardCorrupt, match="ends inside tensor a"):
        tensor.read()


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_no_mutation_escapes_as_anything_but_a_typed_error(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("mutation") / "x.safetensors"
    save_file({"a": np.ones((3, 4), np.float32), "b": np.ones(5, np.int8)}, path)
    mutated = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(mutated) - 1))
        mutated[at] = data.draw(st.integers(0, 255))
    path.write_bytes(mutated[: data.draw(st.integers(0, len(mutated)))])
    try:
        for tensor in open_safetensors(path).values():
            assert tensor.read().nbytes == tensor.nbytes
    except TabwrightError:
        pass
