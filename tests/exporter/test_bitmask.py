"""compressed-tensors' sparse formats: every value back in its place, zeros exactly zero.

compressed-tensors 0.19 writes them no more and reads only their bitmasks; the tests' own
writer is held against that, and against bytes worked out by hand.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs
from compressed_tensors.utils import unpack_bitmasks
from safetensors.torch import load_file, save_file

from exporter.checkpoint import Dense, open_checkpoint
from exporter.checkpoint.bitmask import Bitmasked, restore
from exporter.checkpoint.compressed_tensors import CompressedTensors
from exporter.checkpoint.errors import TensorMissing, UnsupportedScheme, WrongShape
from exporter.checkpoint.safetensors_file import open_safetensors
from exporter.pipeline import export
from exporter.quant.blocks import dequantise
from exporter.reference.model import read_by, read_config
from exporter.reference.weights import bundle_weights
from manifests.bundle import read_manifest
from targets import find_targets
from tests.sparse_layouts import Form, pack, prune, rewrite

Factory = Callable[[str], Path]
FORMS: tuple[Form, ...] = ("sparse-bitmask", "sparse-24-bitmask")
DTYPES = [torch.bfloat16, torch.float16, torch.float32, torch.int8, torch.float8_e4m3fn]


def read_one(folder: Path, tensors: dict[str, torch.Tensor]) -> Bitmasked:
    path = folder / "model.safetensors"
    save_file({f"one.{part}": value for part, value in tensors.items()}, path)
    stored = open_safetensors(path)
    (weight,) = restore(stored)
    assert not stored
    assert weight.name == "one.weight"
    return weight


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("form", FORMS)
def test_a_matrix_is_what_was_pruned(form: Form, dtype: torch.dtype, tmp_path: Path) -> None:
    # 44 columns end in the middle of a byte of the mask.
    values = torch.randint(1, 100, (24, 44), generator=torch.Generator().manual_seed(1))
    pruned = prune(values.to(dtype), form)
    parts = pack(pruned, form)
    # The library's own idea of the mask.
    assert torch.equal(unpack_bitmasks(parts["bitmask"], [24, 44]), pruned.float() != 0)
    weight = read_one(tmp_path, parts)
    expected = pruned.float().numpy()
    assert (weight.form, weight.shape) == (form, (24, 44))
    np.testing.assert_array_equal(weight.read().astype(np.float32), expected)
    blocks = [weight.read_rows(0, 7), weight.read_rows(7, 8), weight.read_rows(8, 24)]
    np.testing.assert_array_equal(np.concatenate(blocks).astype(np.float32), expected)
    np.testing.assert_array_equal(weight.read_columns(3, 9).astype(np.float32), expected[:, 3:9])


def test_bytes_by_hand(tmp_path: Path) -> None:
    parts = {
        "shape": torch.tensor([2, 9]),
        "compressed": torch.tensor([5.0, 6.0, 7.0]),
        # Columns 0 and 7; column 8.
        "bitmask": torch.tensor([[0x81, 0], [0, 1]], dtype=torch.uint8),
        "row_offsets": torch.tensor([0, 2]),
    }
    dense = [[5, 0, 0, 0, 0, 0, 0, 6, 0], [0, 0, 0, 0, 0, 0, 0, 0, 7]]
    assert read_one(tmp_path, parts).read().tolist() == dense


def test_a_vector_has_one_row(tmp_path: Path) -> None:
    parts = {
        "shape": torch.tensor([5]),
        "compressed": torch.tensor([2.0, 3.0]),
        "bitmask": torch.tensor([0b10010], dtype=torch.uint8),
        "row_offsets": torch.tensor(0),
    }
    weight = read_one(tmp_path, parts)
    assert weight.read().tolist() == [0, 2, 0, 0, 3]
    assert weight.read_rows(1, 4).tolist() == [2, 0, 0]


def test_a_matrix_may_be_all_zeros(tmp_path: Path) -> None:
    weight = read_one(tmp_path, pack(torch.zeros(3, 16), "sparse-bitmask"))
    assert weight.read_rows(1, 3).tolist() == [[0.0] * 16] * 2


@pytest.mark.parametrize("variant", ["bf16", "w8a8", "fp8-channel"])
@pytest.mark.parametrize("form", FORMS)
def test_checkpoints_keep_every_value_and_every_zero(
    form: Form, variant: str, tiny_checkpoint: Factory, tmp_path: Path
) -> None:
    dense = shutil.copytree(tiny_checkpoint(variant), tmp_path / "dense")
    sparse = shutil.copytree(dense, tmp_path / "sparse")
    left = rewrite(sparse, form)
    # The same weights with the zeros written out, which the format's own tests vouch for.
    tensors = load_file(dense / "model.safetensors")
    save_file(tensors | left, dense / "model.safetensors")
    expected = open_checkpoint(dense).weights
    read = open_checkpoint(sparse).weights
    assert set(read) == set(expected)
    for name, weight in read.items():
        values = _values(weight)
        np.testing.assert_array_equal(values, _values(expected[name]))
        if name in left:
            assert weight.scheme.startswith(f"compressed-tensors {form} ")
            assert not values[left[name].float().numpy() == 0].any()
    assert read_by(read_config(sparse), None) == "tabwright"


def _values(weight: Any) -> Any:
    if isinstance(weight, Dense):
        return weight.values()
    codes = weight.codes(0, weight.shape[0])
    return dequantise(codes, weight.scales(), weight.zero_points(), weight.bits)


@pytest.mark.parametrize(
    ("variant", "pattern"), [("sparse-bitmask", None), ("sparse-24-fp8", "2:4")]
)
def test_the_census_tells_the_pattern(
    variant: str, pattern: str | None, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    bundle, targets = tmp_path / "bundle", find_targets(["webgpu-q4", "webgpu-q8"])
    export(tiny_checkpoint(variant), targets, bundle, runtime=page)
    source = open_checkpoint(tiny_checkpoint(variant)).weights
    for weights in read_manifest(bundle).weights.values():
        for row, values in bundle_weights(bundle, weights):
            if row.role == "linear":
                zeros = _values(source[row.name]) == 0
                assert not values[zeros].any()
                assert row.zeros is not None
                assert row.zeros.source == zeros.mean()
                assert zeros.mean() >= 0.5
                assert row.zeros.pattern == pattern


_GOOD = prune(torch.randn(4, 16, generator=torch.Generator().manual_seed(2)), "sparse-24-bitmask")
_HOSTILE: dict[str, tuple[Form, dict[str, torch.Tensor | None], str]] = {
    "no shape": ("sparse-bitmask", {"shape": None}, "no tensor"),
    "no values": ("sparse-bitmask", {"compressed": None}, "no tensor"),
    "a shape of nothing": ("sparse-bitmask", {"shape": torch.tensor([0, 16])}, "says"),
    "a shape of three axes": ("sparse-bitmask", {"shape": torch.tensor([4, 4, 4])}, "int64"),
    "a shape of floats": ("sparse-bitmask", {"shape": torch.tensor([4.0, 16.0])}, "float32"),
    "a huge shape": ("sparse-bitmask", {"shape": torch.tensor([4, 1 << 40])}, "expected"),
    "signed bits": (
        "sparse-bitmask",
        {"bitmask": torch.zeros(4, 2, dtype=torch.int8)},
        "expected uint8",
    ),
    "more bits than values": (
        "sparse-bitmask",
        {"bitmask": torch.full((4, 2), 255, dtype=torch.uint8)},
        "does not count",
    ),
    "rows that begin outside": (
        "sparse-bitmask",
        {"row_offsets": torch.tensor([0, 8, 1 << 40, 24])},
        "does not count",
    ),
    "rows that begin before": (
        "sparse-bitmask",
        {"row_offsets": torch.tensor([-8, 0, 8, 16])},
        "does not count",
    ),
    "too few rows": ("sparse-bitmask", {"row_offsets": torch.tensor([0, 8])}, "expected"),
    "not half of a row": (
        "sparse-24-bitmask",
        {"bitmask": torch.ones(4, 2, dtype=torch.uint8)},
        "half of every row",
    ),
    "values of another shape": (
        "sparse-24-bitmask",
        {"compressed": torch.zeros(4, 9)},
        "expected",
    ),
}


@pytest.mark.parametrize("case", _HOSTILE)
def test_parts_that_contradict_each_other_are_refused(case: str, tmp_path: Path) -> None:
    form, changes, reason = _HOSTILE[case]
    parts = {**pack(_GOOD, form), **changes}
    with pytest.raises((WrongShape, TensorMissing), match=reason):
        read_one(tmp_path, {name: part for name, part in parts.items() if part is not None}).read()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"sparsity_config": {"format": "sparse-48"}}, "sparsity as sparse-48"),
        (
            {
                "format": "marlin-24",
                "config_groups": {"group_0": {"weights": {"num_bits": 4, "type": "int"}}},
            },
            "marlin-24 int4",
        ),
    ],
)
def test_other_sparse_formats_are_refused_by_name(config: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedScheme, match=said):
        CompressedTensors(config, Path("config.json"))


def test_zeros_written_out_need_no_bitmask() -> None:
    CompressedTensors({"sparsity_config": {"format": "dense"}}, Path("config.json"))


@pytest.mark.parametrize(
    "order", [None, False, "weight", "static", "group", "GROUP", "dynamic", "Dynamic", True]
)
def test_orders_that_the_library_has_dropped_are_read_here(order: object) -> None:
    weights = {"num_bits": 4, "strategy": "group", "group_size": 32, "actorder": order}
    scheme = {"quant_method": "compressed-tensors", "config_groups": {"all": {"weights": weights}}}
    config: Any = SimpleNamespace(quantization_config=scheme)
    by_library = read_by(config, None) == "transformers"
    assert by_library == _is_read_by_library(weights)


def _is_read_by_library(weights: dict[str, Any]) -> bool:
    try:
        QuantizationArgs(**weights)
    except ValueError:
        return False
    return True
