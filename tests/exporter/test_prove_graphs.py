"""``verify --against``: graphs that read something else than what the ledger is about."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from exporter.pipeline import export
from exporter.prove import prove
from exporter.prove.errors import LedgerUntrue
from manifests.bundle import Tensor, read_manifest
from targets import TARGETS
from tests.lies import is_exact_linear, reseal, row_of

Factory = Callable[[str], Path]
GRAPH = Path("onnx") / "model_q4_wasm.onnx"


@pytest.fixture(scope="module")
def bundle_of(
    tiny_checkpoint: Factory, page: Path, tmp_path_factory: pytest.TempPathFactory
) -> Factory:
    made: dict[str, Path] = {}

    def bundle(variant: str) -> Path:
        if variant not in made:
            made[variant] = tmp_path_factory.mktemp("out") / variant
            export(tiny_checkpoint(variant), (TARGETS["wasm-q4"],), made[variant], runtime=page)
        return made[variant]

    return bundle


def _in_graph(
    choose: Callable[[Tensor], bool], part: str, change: Callable[[Any, Any], object]
) -> Callable[[Path], Tensor]:
    """Change a row's initializer, or the graph around it."""

    def damage(bundle: Path) -> Tensor:
        row, path = row_of(bundle, choose), bundle / GRAPH
        model = onnx.load(path, load_external_data=False)
        name = f"{row.name}.{part}" if part else row.name
        [tensor] = [each for each in model.graph.initializer if each.name == name]
        change(tensor, model.graph)
        path.write_bytes(model.SerializeToString())
        reseal(bundle, lambda _: None)
        return row

    return damage


def _entry(tensor: Any, key: str) -> Any:
    return next(entry for entry in tensor.external_data if entry.key == key)


def _moved(tensor: Any, _: Any) -> None:
    offset = _entry(tensor, "offset")
    offset.value = str(int(offset.value) + 64)


def _shortened(tensor: Any, _: Any) -> None:
    """To the first row of all."""
    length = _entry(tensor, "length")
    length.value = str(int(length.value) // tensor.dims[0])
    tensor.dims[0] = 1


def _swapped(tensor: Any, graph: Any) -> None:
    """Another's bytes, as the ledger has them, of the same length."""
    for other in graph.initializer:
        if other.name != tensor.name and other.name.endswith("q_proj.weight.codes"):
            entries = [(entry.key, entry.value) for entry in other.external_data]
            del tensor.external_data[:]
            for key, value in entries:
                tensor.external_data.add(key=key, value=value)


def _elsewhere(tensor: Any, _: Any) -> None:
    _entry(tensor, "location").value = "../tokenizer.json"


def _lengthless(tensor: Any, _: Any) -> None:
    tensor.external_data.remove(_entry(tensor, "length"))


def _renamed(tensor: Any, graph: Any) -> None:
    for node in graph.node:
        node.input[:] = [f"x{name}" if name == tensor.name else name for name in node.input]
    tensor.name = f"x{tensor.name}"


def _inside(tensor: Any, _: Any) -> None:
    """Other values, in the graph's own file."""
    del tensor.external_data[:]
    tensor.data_location = onnx.TensorProto.DEFAULT
    size = {onnx.TensorProto.FLOAT: 4}.get(tensor.data_type, 1)
    tensor.raw_data = bytes(int(np.prod(tensor.dims)) * size)


def _unused(tensor: Any, graph: Any) -> None:
    """There still, but the graph reads an initializer of its own."""
    other = onnx.TensorProto()
    other.CopyFrom(tensor)
    _inside(other, graph)
    other.name = "other"
    graph.initializer.append(other)
    for node in graph.node:
        node.input[:] = ["other" if name == tensor.name else name for name in node.input]


def _of_type(kind: int) -> Callable[[Any, Any], None]:
    return lambda tensor, _: setattr(tensor, "data_type", kind)


def _is_norm(row: Tensor) -> bool:
    return row.name == "model.norm.weight"


LIES: dict[str, tuple[str, Callable[[Path], Tensor], str]] = {
    "codes moved": (
        "w4a16-g32",
        _in_graph(is_exact_linear, "codes", _moved),
        "model_q4_wasm.onnx: reads its codes at bytes",
    ),
    "norm moved": (
        "bf16",
        _in_graph(_is_norm, "", _moved),
        "reads its values at bytes",
    ),
    "scales cut short": (
        "w4a16-g32",
        _in_graph(is_exact_linear, "scales", _shortened),
        "does not read all of its scales",
    ),
    "codes of another": (
        "w4a16-g32",
        _in_graph(lambda r: "0.self_attn.o_proj" in r.name, "codes", _swapped),
        "reads its codes at bytes",
    ),
    "codes in no shard": (
        "w4a16-g32",
        _in_graph(is_exact_linear, "codes", _elsewhere),
        "lies nowhere",
    ),
    "codes without an end": (
        "w4a16-g32",
        _in_graph(is_exact_linear, "codes", _lengthless),
        "lies nowhere",
    ),
    "own zero points": (
        "w4a16-g32-asymmetric",
        _in_graph(is_exact_linear, "zero_points", _moved),
        "reads its zero_points at bytes",
    ),
    "zero points that are no middles": (
        "w4a16-g32",
        _in_graph(
            is_exact_linear,
            "zero_points",
            lambda tensor, _: setattr(_entry(tensor, "offset"), "value", "0"),
        ),
        "reads zero points that the ledger does not have",
    ),
    "initializer that has no row": (
        "w4a16-g32",
        _in_graph(is_exact_linear, "codes", _renamed),
        "no row of the ledger is about it",
    ),
    "codes in its own file": (
        "w4a16-g32",
        _in_graph(is_exact_linear, "codes", _inside),
        "does not read any of its codes",
    ),
    "codes unused": (
        "w4a16-g32",
        _in_graph(is_exact_linear, "codes", _unused),
        "does not read any of its codes",
    ),
    "norm in its own file": (
        "bf16",
        _in_graph(_is_norm, "", _inside),
        "no graph over q4 reads it",
    ),
    "codes as signed": (
        "w4a16-g32",
        _in_graph(is_exact_linear, "codes", _of_type(onnx.TensorProto.INT4)),
        "reads its codes as INT4",
    ),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_and_the_tensor_named(
    lie: str, tiny_checkpoint: Factory, bundle_of: Factory, tmp_path: Path
) -> None:
    variant, damage, reason = LIES[lie]
    copy = tmp_path / "bundle"
    shutil.copytree(bundle_of(variant), copy)
    row = damage(copy)
    with pytest.raises(LedgerUntrue) as caught:
        prove(copy, tiny_checkpoint(variant))
    assert reason in str(caught.value)
    assert row.name in str(caught.value)


@pytest.mark.parametrize("variant", ["w4a16-g32", "gptq-act-order"])
def test_weights_in_many_shards_are_proven(
    variant: str, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    targets = [replace(TARGETS[name], max_shard_bytes=66_000) for name in ("wasm-q4", "webgpu-q4")]
    export(tiny_checkpoint(variant), tuple(targets), tmp_path / "out", runtime=page)
    assert len(read_manifest(tmp_path / "out").weights["q4"].shards) >= 3
    prove(tmp_path / "out", tiny_checkpoint(variant))


def test_an_order_of_columns_that_no_row_has_is_found(
    tiny_checkpoint: Factory, bundle_of: Factory, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle_of("gptq-act-order"), copy)
    path = copy / GRAPH
    model = onnx.load(path, load_external_data=False)
    order = next(each for each in model.graph.initializer if each.name.startswith("permutation."))
    _moved(order, None)
    path.write_bytes(model.SerializeToString())
    reseal(copy, lambda _: None)
    with pytest.raises(LedgerUntrue, match="order of columns that no row of the ledger has"):
        prove(copy, tiny_checkpoint("gptq-act-order"))


def test_a_graph_that_is_none_is_named(
    tiny_checkpoint: Factory, bundle_of: Factory, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle_of("bf16"), copy)
    (copy / GRAPH).write_bytes(b"\xff" * 64)
    reseal(copy, lambda _: None)
    with pytest.raises(LedgerUntrue, match=r"model_q4_wasm\.onnx: is no ONNX graph"):
        prove(copy, tiny_checkpoint("bf16"))
