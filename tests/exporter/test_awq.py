"""AWQ checkpoints against the floats that the tests' own packer wrote down.

transformers runs AWQ through gptqmodel or AutoAWQ only, neither of which installs here.
Bundles of AWQ checkpoints are tested with those of GPTQ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from exporter.checkpoint.awq import Awq, AwqLinear
from exporter.checkpoint.errors import TensorMissing, UnsupportedScheme, WrongShape
from exporter.checkpoint.safetensors_file import open_safetensors
from exporter.quant.blocks import dequantise
from tests.exporter.test_gptq import linear_of
from tests.packed_layouts import Layout, describe, pack

LAYOUTS = [
    Layout("awq", group=group, symmetric=symmetric)
    for group in (32, 64, 128, -1)
    for symmetric in (True, False)
]


def read_one(folder: Path, tensors: dict[str, NDArray[Any]], config: dict[str, Any]) -> AwqLinear:
    path = folder / "model.safetensors"
    save_file({f"one.{part}": value for part, value in tensors.items()}, path)
    stored = open_safetensors(path)
    (weight,) = Awq(config, folder / "config.json").read(stored)
    assert not stored
    return weight


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_a_linear_is_what_was_packed(layout: Layout, tmp_path: Path) -> None:
    linear = linear_of(layout)
    weight = read_one(tmp_path, pack(linear, layout), describe(layout))
    assert (weight.name, weight.shape, weight.bits) == ("one.weight", (24, 256), 4)
    codes = np.concatenate([weight.codes(0, 8), weight.codes(8, 24)])
    np.testing.assert_array_equal(codes, linear.codes)
    zeros = weight.zero_points()
    assert (zeros is None) == layout.symmetric
    values = dequantise(codes, weight.scales(), zeros, 4)
    np.testing.assert_array_equal(values, linear.values())


def test_one_word_by_hand(tmp_path: Path) -> None:
    # Eight outputs with codes 0 to 7: from the lowest bits up 0, 2, 4, 6, 1, 3, 5, 7.
    tensors: dict[str, NDArray[Any]] = {
        "qweight": np.full((16, 1), 0x75316420, np.int32),
        "qzeros": np.array([[0x01234567]], np.int32),
        "scales": np.ones((1, 8), np.float16),
    }
    weight = read_one(tmp_path, tensors, describe(LAYOUTS[0]))
    assert weight.codes(0, 8)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6, 7]
    zeros = weight.zero_points()
    assert zeros is not None
    assert zeros[:, 0].tolist() == [7, 3, 6, 2, 5, 1, 4, 0]


def test_scheme_in_words(tmp_path: Path) -> None:
    layout = Layout("awq", group=128, symmetric=False)
    weight = read_one(tmp_path, pack(linear_of(layout), layout), describe(layout))
    assert weight.scheme == "awq int4 g128 asymmetric"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "gemv"}, "version gemv"),
        ({"version": "GEMV_FAST"}, "version GEMV_FAST"),
        ({"version": "llm-awq"}, "version llm-awq"),
        ({"bits": 8}, "8 bits"),
    ],
)
def test_other_versions_are_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedScheme, match=said):
        Awq(describe(LAYOUTS[0]) | change, Path("config.json"))


@pytest.mark.parametrize(
    ("part", "value", "error"),
    [
        ("qzeros", None, TensorMissing),
        ("scales", None, TensorMissing),
        ("qzeros", np.zeros((8, 4), np.int32), WrongShape),
        ("qzeros", np.zeros((8, 3), np.float32), WrongShape),
        ("scales", np.ones((7, 24), np.float16), WrongShape),
        ("scales", np.ones((8, 24), np.int16), WrongShape),
        ("scales", np.ones((0, 24), np.float16), WrongShape),
        ("qweight", np.zeros((256, 3, 1), np.int32), WrongShape),
        ("qweight", np.zeros((256, 0), np.int32), WrongShape),
        ("qweight", np.zeros((256, 3), np.int64), WrongShape),
    ],
)
def test_parts_that_do_not_fit(
    part: str, value: NDArray[Any] | None, error: type[Exception], tmp_path: Path
) -> None:
    layout = LAYOUTS[0]
    tensors = pack(linear_of(layout), layout)
    if value is None:
        del tensors[part]
    else:
        tensors[part] = value
    with pytest.raises(error):
        read_one(tmp_path, tensors, describe(layout))
