"""GPTQ checkpoints against the floats that the tests' own packer wrote down.

transformers runs GPTQ through gptqmodel only, which needs a newer torch than the one here:
the checkpoints are written by tests.packed_layouts, from the format's description, and
compared with what it meant by them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from exporter.checkpoint import Dense, open_checkpoint
from exporter.checkpoint.errors import TensorUnknown, UnsupportedScheme
from exporter.checkpoint.gptq import Gptq, GptqLinear
from exporter.checkpoint.reordered import Reordered
from exporter.checkpoint.safetensors_file import open_safetensors
from exporter.pipeline import export
from exporter.quant.blocks import dequantise
from exporter.reference.make import make_reference
from exporter.reference.model import load_checkpoint, read_by, read_config
from exporter.reference.weights import bundle_weights
from manifests.bundle import Manifest, Tensor, read_manifest
from targets import find_targets
from tests.checkpoints import VARIANTS
from tests.packed_layouts import Layout, Linear, describe, pack, rewrite

Factory = Callable[[str], Path]
LAYOUTS = [
    Layout("gptq", bits=bits, group=group, symmetric=symmetric, act_order=act_order)
    for bits in (4, 8)
    for group in (32, 64, 128, -1)
    for symmetric in (True, False)
    for act_order in (False, True)
]
V2 = Layout("gptq", symmetric=False, checkpoint_format="gptq_v2")


def linear_of(layout: Layout, rows: int = 24, columns: int = 256, seed: int = 1) -> Linear:
    """Every code, zero point and order that the layout can have, at random."""
    rng = np.random.default_rng(seed)
    group = columns if layout.group == -1 else layout.group
    groups = np.arange(columns) // group
    shape = (rows, columns // group)
    middle = np.full(shape, 2 ** (layout.bits - 1))
    return Linear(
        codes=rng.integers(0, 2**layout.bits, (rows, columns)),
        zeros=middle if layout.symmetric else rng.integers(0, 2**layout.bits, shape),
        scales=rng.uniform(0.001, 0.1, shape).astype(np.float16),
        groups=rng.permutation(groups) if layout.act_order else groups,
    )


def read_one(folder: Path, tensors: dict[str, NDArray[Any]], config: dict[str, Any]) -> Any:
    path = folder / "model.safetensors"
    save_file({f"one.{part}": value for part, value in tensors.items()}, path)
    stored = open_safetensors(path)
    (weight,) = Gptq(config, folder / "config.json").read(stored)
    assert not stored
    assert weight.name == "one.weight"
    return weight


@pytest.mark.parametrize("layout", [*LAYOUTS, V2], ids=str)
def test_a_linear_is_what_was_packed(layout: Layout, tmp_path: Path) -> None:
    linear = linear_of(layout)
    weight = read_one(tmp_path, pack(linear, layout), describe(layout))
    assert weight.shape == (24, 256)
    reordered = layout.act_order and layout.group != -1
    assert isinstance(weight, Reordered) == reordered
    packed: GptqLinear = weight.packed if reordered else weight
    order = weight.order if reordered else np.arange(256)
    # Codes and zero points as they were, in blocks of rows that begin anywhere.
    codes = np.concatenate([packed.codes(0, 7), packed.codes(7, 24)])
    np.testing.assert_array_equal(codes, linear.codes[:, order])
    zeros = packed.zero_points()
    assert (zeros is None) == layout.symmetric
    if zeros is not None:
        np.testing.assert_array_equal(zeros, linear.zeros)
    np.testing.assert_array_equal(packed.scales(), linear.scales.astype(np.float32))
    # Sorted by group, and inside a group as they came.
    groups = linear.groups[order]
    assert (np.diff(groups) >= 0).all()
    assert ((np.diff(order) > 0) | (np.diff(groups) > 0)).all()
    values = (
        np.concatenate([weight.rows(0, 5), weight.rows(5, 24)])
        if isinstance(weight, Dense)
        else dequantise(codes, packed.scales(), zeros, packed.bits)
    )
    np.testing.assert_array_equal(values, linear.values())


def test_words_by_hand(tmp_path: Path) -> None:
    # 0x77777777 is what every symmetric 4-bit checkpoint of AutoGPTQ has: 8 less one.
    tensors: dict[str, NDArray[Any]] = {
        "qweight": np.array([[0x76543210], [-0x01234568]], np.int32),
        "qzeros": np.array([[0x77777777]], np.int32),
        "scales": np.ones((1, 1), np.float16),
        "g_idx": np.zeros(16, np.int32),
    }
    weight = read_one(tmp_path, tensors, describe(LAYOUTS[0]))
    assert weight.codes(0, 1).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]]
    assert weight.zero_points() is None


def test_scheme_in_words(tmp_path: Path) -> None:
    layout = Layout("gptq", group=64, act_order=True)
    weight = read_one(tmp_path, pack(linear_of(layout), layout), describe(layout))
    assert weight.scheme == "gptq int4 g64 symmetric act-order"
    layout = Layout("gptq", bits=8, group=-1, symmetric=False)
    weight = read_one(tmp_path, pack(linear_of(layout), layout), describe(layout))
    assert weight.scheme == "gptq int8 per channel asymmetric"


def test_the_older_config_names_no_layout(tmp_path: Path) -> None:
    layout = Layout("gptq", symmetric=False)
    linear = linear_of(layout)
    weight = read_one(tmp_path, pack(linear, layout), {"quant_method": "gptq", "bits": 4})
    np.testing.assert_array_equal(weight.zero_points(), linear.zeros)


def test_widths_are_read_off_the_tensors(tmp_path: Path) -> None:
    layout = Layout("gptq", bits=8)
    linear = linear_of(layout)
    weight = read_one(tmp_path, pack(linear, layout), describe(Layout("gptq", bits=4)))
    assert weight.bits == 8
    np.testing.assert_array_equal(weight.codes(0, 24), linear.codes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"checkpoint_format": "marlin"}, "layout of marlin"),
        ({"checkpoint_format": "BITBLAS"}, "layout of bitblas"),
        ({"is_marlin_format": True}, "marlin"),
        ({"bits": 3}, "3 bits"),
        ({"bits": 2}, "2 bits"),
    ],
)
def test_other_layouts_are_refused_by_name(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UnsupportedScheme, match=said):
        Gptq(describe(LAYOUTS[0]) | change, Path("config.json"))


def test_groups_of_unequal_size_are_refused_by_name(tmp_path: Path) -> None:
    layout = Layout("gptq")
    tensors = pack(linear_of(layout), layout)
    tensors["g_idx"][0] = 1
    with pytest.raises(UnsupportedScheme, match=r"groups of 31 to 33 inputs \(one\)"):
        read_one(tmp_path, tensors, describe(layout))


@pytest.mark.parametrize(("value", "taken"), [(0.0, True), (0.5, False)])
def test_a_bias_of_zeros_that_the_architecture_lacks_is_no_matter(
    value: float, taken: bool, tiny_checkpoint: Factory, tmp_path: Path
) -> None:
    from safetensors.numpy import load_file

    source = tiny_checkpoint("gptq-act-order")
    checkpoint = shutil.copytree(source, tmp_path / "checkpoint")
    shapes = {name: tuple(w.shape) for name, w in open_checkpoint(source).weights.items()}
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.bias"] = np.full(192, value, np.float16)
    save_file(tensors, checkpoint / "model.safetensors")
    opened = open_checkpoint(checkpoint)
    if taken:
        assert {weight.name for weight in opened.select(shapes)} == set(shapes)
    else:
        with pytest.raises(TensorUnknown, match=r"up_proj\.bias"):
            opened.select(shapes)


@pytest.fixture(scope="module")
def exported(
    tiny_checkpoint: Factory, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Path, Path, dict[str, Linear]]]:
    """Checkpoint, bundle and what the packer wrote, of a variant."""
    page = tmp_path_factory.mktemp("page")
    (page / "index.html").write_text("<!doctype html>")
    made: dict[str, tuple[Path, Path, dict[str, Linear]]] = {}

    def bundle(variant: str) -> tuple[Path, Path, dict[str, Linear]]:
        if variant not in made:
            folder = tmp_path_factory.mktemp(variant)
            plain = "bf16-untied" if not VARIANTS[variant].tied else "bf16"
            checkpoint = shutil.copytree(tiny_checkpoint(plain), folder / "checkpoint")
            _to_float16(checkpoint)
            layout = VARIANTS[variant].layout
            assert layout is not None
            written = rewrite(checkpoint, layout)
            targets = find_targets(["webgpu-q4", "webgpu-q8", "wasm-q4"])
            export(checkpoint, targets, folder / "bundle", runtime=page)
            made[variant] = checkpoint, folder / "bundle", written
        return made[variant]

    return bundle


def _to_float16(checkpoint: Path) -> None:
    from safetensors.torch import load_file
    from safetensors.torch import save_file as save

    tensors = load_file(checkpoint / "model.safetensors")
    save({name: t.half() for name, t in tensors.items()}, checkpoint / "model.safetensors")


def _rows(bundle: Path, manifest: Manifest, weight_set: str) -> dict[str, tuple[Tensor, Any]]:
    weights = manifest.weights[weight_set]
    return {row.name: (row, values) for row, values in bundle_weights(bundle, weights)}


@pytest.mark.parametrize(
    ("variant", "weight_set"),
    [
        ("gptq-act-order", "q4"),
        ("gptq-act-order", "q8"),
        ("gptq-w8-act-order", "q8"),
        ("gptq-v2-head", "q4"),
        ("awq", "q4"),
        ("awq", "q8"),
        ("w4a16-act-order", "q4"),
        ("w4a16-act-order", "q8"),
    ],
)
def test_bundles_carry_every_code(
    variant: str, weight_set: str, exported: Callable[[str], Any]
) -> None:
    _, bundle, written = exported(variant)
    layout = VARIANTS[variant].layout
    assert layout is not None
    rows = _rows(bundle, read_manifest(bundle), weight_set)
    assert len(written) == 14 + layout.head
    for name, linear in written.items():
        row, values = rows[name]
        assert row.outcome == "exact"
        assert row.source.startswith(layout.method)
        assert (row.permutation is not None) == layout.act_order
        np.testing.assert_array_equal(values, linear.values())


def test_wider_codes_in_act_order_are_rounded_in_their_own_order(
    exported: Callable[[str], Any],
) -> None:
    _, bundle, written = exported("gptq-w8-act-order")
    for name, (row, values) in _rows(bundle, read_manifest(bundle), "q4").items():
        if name in written:
            expected = written[name].values()
            assert row.outcome == "requantised"
            assert row.permutation is None
            error = np.linalg.norm(values - expected) / np.linalg.norm(expected)
            assert row.rounding is not None
            assert error == pytest.approx(row.rounding.rms, rel=1e-3)
            assert error < 0.15


@pytest.mark.parametrize("target", ["webgpu-q4", "wasm-q4"])
def test_products_of_one_input_share_its_gather(
    target: str, exported: Callable[[str], Any]
) -> None:
    _, bundle, _ = exported("gptq-act-order")
    graph = onnx.load(
        bundle / read_manifest(bundle).targets[target].graph, load_external_data=False
    ).graph
    orders = {i.name for i in graph.initializer if i.name.startswith("permutation.")}
    gathers = [node for node in graph.node if node.op_type == "Gather" and node.input[1] in orders]
    # A layer has four inputs: of q, k and v; of o; of gate and up; of down.
    assert len(gathers) == len(orders) == 4 * VARIANTS["gptq-act-order"].layers


@pytest.mark.parametrize("variant", ["gptq-act-order", "gptq-v2-head", "awq"])
def test_the_reference_model_has_the_packer_s_floats(
    variant: str, exported: Callable[[str], Any]
) -> None:
    checkpoint, _, written = exported(variant)
    config = read_config(checkpoint)
    assert read_by(config, None) == "tabwright"
    state = load_checkpoint(checkpoint, config, torch.float32, "cpu").state_dict()
    for name, linear in written.items():
        np.testing.assert_array_equal(state[name].numpy(), linear.values())


def test_the_reference_says_who_read_the_checkpoint(
    exported: Callable[[str], Any], tmp_path: Path
) -> None:
    checkpoint, bundle, _ = exported("gptq-act-order")
    text = {"name": "one", "language": "en", "text": "A single line."}
    suite = {"tokens": [text], "chats": [], "scored": [text], "greedy": []}
    (tmp_path / "suite.json").write_text(json.dumps(suite))
    reference = make_reference(
        checkpoint,
        bundle,
        tmp_path / "reference.json",
        device="cpu",
        suite=tmp_path / "suite.json",
        repetitions=1,
        decode_tokens=1,
    )
    assert reference.checkpoint_read_by == "tabwright"
    # Only the tied head and embedding were rounded, to 8 bits.
    assert 0 < reference.answers["q4"].export_loss.max_abs_logit < 0.5
