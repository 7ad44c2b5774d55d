"""``verify --against``: graphs that read something else than what the ledger is about."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
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
from tests.lies import assert_found, is_exact_linear, reseal, row_of
from tests.made_once import exported_once

Factory = Callable[[str], Path]
GRAPH = Path("onnx") / "model_q4_wasm.onnx"


@pytest.fixture(scope="module")
def bundle_of(
    tiny_checkpoint: Factory, page: Path, tmp_path_factory: pytest.TempPathFactory
) -> Factory:
    return exported_once(tiny_checkpoint, (TARGETS["wasm-q4"],), page, tmp_path_factory)


#: Changes an initializer, or the graph around it.
Change = Callable[[Any, Any], object]


@dataclass(frozen=True)
class Lie:
    """What a graph is made to read instead of a row's ``part``, and what is said of it.

    ``part`` is empty for the values of a row of floats.
    """

    change: Change
    reason: str
    part: str = "codes"
    choose: Callable[[Tensor], bool] = is_exact_linear
    variant: str = "w4a16-g32"

    def tell(self, bundle: Path) -> Tensor:
        """Change the bundle, and say which row's initializer was."""
        row = row_of(bundle, self.choose)
        name = f"{row.name}.{self.part}" if self.part else row.name
        _change(bundle, lambda tensor: tensor.name == name, self.change)
        return row


def _change(bundle: Path, choose: Callable[[Any], bool], change: Change) -> None:
    path = bundle / GRAPH
    model = onnx.load(path, load_external_data=False)
    change(next(each for each in model.graph.initializer if choose(each)), model.graph)
    path.write_bytes(model.SerializeToString())
    reseal(bundle, lambda _: None)


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


def _to_the_start(tensor: Any, _: Any) -> None:
    _entry(tensor, "offset").value = "0"


LIES = {
    "codes moved": Lie(_moved, "model_q4_wasm.onnx: reads its codes at bytes"),
    "norm moved": Lie(_moved, "reads its values at bytes", "", _is_norm, "bf16"),
    "scales cut short": Lie(_shortened, "does not read all of its scales", "scales"),
    "codes of another": Lie(
        _swapped, "reads its codes at bytes", choose=lambda r: "0.self_attn.o_proj" in r.name
    ),
    "codes in no shard": Lie(_elsewhere, "lies nowhere"),
    "codes without an end": Lie(_lengthless, "lies nowhere"),
    "own zero points": Lie(
        _moved, "reads its zero_points at bytes", "zero_points", variant="w4a16-g32-asymmetric"
    ),
    "zero points that are no middles": Lie(
        _to_the_start, "reads zero points that the ledger does not have", "zero_points"
    ),
    "initializer that has no row": Lie(_renamed, "no row of the ledger is about it"),
    "codes in its own file": Lie(_inside, "does not read any of its codes"),
    "codes unused": Lie(_unused, "does not read any of its codes"),
    "norm in its own file": Lie(_inside, "no graph over q4 reads it", "", _is_norm, "bf16"),
    "codes as signed": Lie(_of_type(onnx.TensorProto.INT4), "reads its codes as INT4"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_lie_is_found_and_the_tensor_named(
    lie: Lie, tiny_checkpoint: Factory, bundle_of: Factory, tmp_path: Path
) -> None:
    checkpoint, bundle = tiny_checkpoint(lie.variant), bundle_of(lie.variant)
    assert_found(lie.tell, lie.reason, checkpoint, bundle, tmp_path / "bundle")


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
    _change(copy, lambda tensor: tensor.name.startswith("permutation."), _moved)
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
