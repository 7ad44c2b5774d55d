"""Bundle weights as floats, against values worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.reference.errors import LedgerMismatch
from exporter.reference.weights import bundle_weights
from manifests.bundle import Range, Tensor, WeightSet

SHARD = "onnx/shard"


def shard(bundle: Path, *parts: bytes) -> list[Range]:
    (bundle / "onnx").mkdir()
    (bundle / SHARD).write_bytes(b"".join(parts))
    ranges, offset = [], 0
    for part in parts:
        ranges.append(Range(file=SHARD, offset=offset, length=len(part)))
        offset += len(part)
    return ranges


def read(bundle: Path, **row: Any) -> Any:
    tensor = Tensor(name="w", source="test", outcome="exact", **{"role": "linear", **row})
    weights = WeightSet(shards=(SHARD,), digest="0" * 64, tensors=(tensor,))
    ((found, values),) = bundle_weights(bundle, weights)
    assert found is tensor
    return values


def half(*values: float) -> bytes:
    return np.array(values, "<f2").tobytes()


def test_four_bits_low_nibble_first_with_the_default_zero_point(tmp_path: Path) -> None:
    codes, scales = shard(tmp_path, bytes([0x10, 0x32, 0xF8, 0x98]), half(1, 0.5, 2, 4))
    values = read(
        tmp_path, shape=(2, 4), bits=4, block_size=2, codes=codes, scales=scales,
        scale_dtype="float16",
    )  # fmt: skip
    assert values.dtype == np.float32
    assert values.tolist() == [[-8, -7, -3, -2.5], [0, 14, 0, 4]]


def test_four_bit_zero_points_are_padded_to_whole_bytes_in_each_row(tmp_path: Path) -> None:
    # Three blocks a row: two bytes of zero points, the last nibble unused.
    codes, scales, zeros = shard(
        tmp_path,
        bytes([0x21, 0x43, 0x65, 0xBA, 0xDC, 0xFE]),
        half(1, 1, 1, 10, 10, 10),
        bytes([0x21, 0xF3, 0x0A, 0xFF]),
    )
    values = read(
        tmp_path, shape=(2, 6), bits=4, block_size=2, codes=codes, scales=scales,
        scale_dtype="float16", zero_points=zeros,
    )  # fmt: skip
    assert values.tolist() == [[0, 1, 1, 2, 2, 3], [0, 10, 120, 130, -10, 0]]


def test_eight_bits(tmp_path: Path) -> None:
    codes, scales, zeros = shard(
        tmp_path, bytes([0, 128, 255, 7]), np.array([2, 3], "<f4").tobytes(), bytes([128, 7])
    )
    row = {
        "shape": (2, 2), "bits": 8, "block_size": 2, "codes": codes, "scales": scales,
        "scale_dtype": "float32",
    }  # fmt: skip
    assert read(tmp_path, **row).tolist() == [[-256, 0], [381, -363]]
    assert read(tmp_path, **row, zero_points=zeros).tolist() == [[-256, 0], [744, 0]]


def test_a_permutation_is_undone(tmp_path: Path) -> None:
    codes, scales, order = shard(
        tmp_path,
        bytes([129, 130, 131, 127]),
        half(1, 10),
        np.array([2, 0, 3, 1], "<i4").tobytes(),
    )
    row = {
        "shape": (1, 4), "bits": 8, "block_size": 2, "codes": codes, "scales": scales,
        "scale_dtype": "float16", "permutation": order,
    }  # fmt: skip
    # Stored: 1, 2, 30 and -10, for the columns 2, 0, 3 and 1.
    assert read(tmp_path, **row).tolist() == [[2, -10, 1, 30]]


@pytest.mark.parametrize("order", [[0, 0, 1, 2], [0, 1, 2, 4], [-1, 1, 2, 3]])
def test_what_is_no_permutation_is_refused(order: list[int], tmp_path: Path) -> None:
    codes, scales, place = shard(tmp_path, bytes(4), half(1, 1), np.array(order, "<i4").tobytes())
    with pytest.raises(LedgerMismatch, match="in no permutation"):
        read(
            tmp_path, shape=(1, 4), bits=8, block_size=2, codes=codes, scales=scales,
            scale_dtype="float16", permutation=place,
        )  # fmt: skip


def test_floats(tmp_path: Path) -> None:
    (values,) = shard(tmp_path, half(1.5, -2, 0.25))
    found = read(tmp_path, role="float", shape=(3,), values=values, value_dtype="float16")
    assert found.dtype == np.float32
    assert found.tolist() == [1.5, -2, 0.25]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"codes": Range(file=SHARD, offset=0, length=3)}, "3 bytes where 4 values"),
        ({"codes": Range(file=SHARD, offset=9, length=4)}, "ends before its bytes do"),
        ({"codes": Range(file="onnx/other", offset=0, length=4)}, "No such file"),
        ({"block_size": 3}, "blocks of 3"),
        ({"bits": 5}, "4 or 8 bits"),
        ({"scales": None}, "4 or 8 bits, a range and scales"),
        ({"bits": None}, "neither codes nor values"),
    ],
)
def test_contradictions_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    codes, scales = shard(tmp_path, bytes(4), half(1, 1, 1, 1))
    row = {
        "shape": (2, 4), "bits": 4, "block_size": 2, "codes": codes, "scales": scales,
        "scale_dtype": "float16",
    }  # fmt: skip
    with pytest.raises(LedgerMismatch, match=reason) as caught:
        read(tmp_path, **{**row, **change})
    assert "tensor w" in str(caught.value)
