"""``verify --against``: true ledgers are proven, and every kind of lie is found."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import tabwright
from exporter.pipeline import export
from exporter.prove import Proof, prove
from exporter.prove.errors import LedgerUntrue
from exporter.write.shards import ChunkDigest
from manifests.bundle import MANIFEST_NAME, File, Manifest, Tensor, read_manifest
from manifests.errors import TabwrightError
from targets import TARGETS
from tests.checkpoints import VARIANTS
from tests.exporter.test_adapter import write_adapter
from tests.onnx_folders import write_folder

Factory = Callable[[str], Path]
SETS = (TARGETS["wasm-q4"], TARGETS["webgpu-q8"])


@pytest.fixture(scope="module")
def bundle_of(tiny_checkpoint: Factory, tmp_path_factory: pytest.TempPathFactory) -> Factory:
    page = tmp_path_factory.mktemp("page")
    (page / "index.html").write_text("<!doctype html>")
    made: dict[str, Path] = {}

    def bundle(variant: str) -> Path:
        if variant not in made:
            made[variant] = tmp_path_factory.mktemp("out") / variant
            export(tiny_checkpoint(variant), SETS, made[variant], runtime=page)
        return made[variant]

    return bundle


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_true_ledger_is_proven(
    variant: str, tiny_checkpoint: Factory, bundle_of: Factory
) -> None:
    proof = prove(bundle_of(variant), tiny_checkpoint(variant))
    manifest = read_manifest(bundle_of(variant))
    for name, weights in manifest.weights.items():
        proven = proof.weights[name]
        exact = [row for row in weights.tensors if row.outcome == "exact"]
        assert (proven.exact, proven.exact + proven.requantised) == (
            len(exact),
            len(weights.tensors),
        )
        quantised = sum(int(np.prod(row.shape)) for row in exact if row.bits is not None)
        floats = sum(int(np.prod(row.shape)) for row in exact if row.bits is None)
        assert (proven.codes_compared, proven.values_compared) == (quantised, floats)
        assert proven.codes_changed == 0


def _reseal(bundle: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and describe all files anew: a bundle that is whole, and lies."""
    document = json.loads((bundle / MANIFEST_NAME).read_bytes())
    document["files"] = [_described(bundle, File(**file)) for file in document["files"]]
    change(document)
    manifest = Manifest.model_validate(document)
    (bundle / MANIFEST_NAME).write_bytes(manifest.sealed_bytes())


def _described(bundle: Path, file: File) -> dict[str, Any]:
    digest = ChunkDigest()
    digest.update((bundle / file.path).read_bytes())
    return digest.describe(file.path, file.media_type).model_dump()


def _row(bundle: Path, choose: Callable[[Tensor], bool]) -> Tensor:
    return next(row for row in read_manifest(bundle).weights["q4"].tensors if choose(row))


def _is_exact_linear(row: Tensor) -> bool:
    return row.role == "linear" and row.outcome == "exact"


def _is_requantised(row: Tensor) -> bool:
    return row.outcome == "requantised"


def _flip(part: str, choose: Callable[[Tensor], bool]) -> Callable[[Path], Tensor]:
    """Flip one bit of a row's codes, scales, zero points or values."""

    def damage(bundle: Path) -> Tensor:
        row = _row(bundle, choose)
        place = getattr(row, part)
        path = bundle / place.file
        data = bytearray(path.read_bytes())
        data[place.offset + place.length // 2] ^= 1
        path.write_bytes(data)
        _reseal(bundle, lambda _: None)
        return row

    return damage


def _tell(choose: Callable[[Tensor], bool], **changes: Any) -> Callable[[Path], Tensor]:
    """Change what a row says."""

    def damage(bundle: Path) -> Tensor:
        row = _row(bundle, choose)

        def change(document: dict[str, Any]) -> None:
            for entry in document["weights"]["q4"]["tensors"]:
                if entry["name"] == row.name:
                    for key, value in changes.items():
                        entry[key] = value(entry) if callable(value) else value

        _reseal(bundle, change)
        return row

    return damage


def _swap_scales(bundle: Path) -> Tensor:
    """Give a row the scales of another of its shape."""
    rows = [row for row in read_manifest(bundle).weights["q4"].tensors if _is_exact_linear(row)]
    first = rows[0]
    other = next(r for r in rows[1:] if r.shape == first.shape)
    assert other.scales is not None
    return _tell(lambda row: row.name == first.name, scales=other.scales.model_dump())(bundle)


def _leave_out(choose: Callable[[Tensor], bool]) -> Callable[[Path], Tensor]:
    def damage(bundle: Path) -> Tensor:
        row = _row(bundle, choose)

        def change(document: dict[str, Any]) -> None:
            tensors = document["weights"]["q4"]["tensors"]
            tensors[:] = [entry for entry in tensors if entry["name"] != row.name]

        _reseal(bundle, change)
        return row

    return damage


def _in_graph(
    graph: str, choose: Callable[[Tensor], bool], part: str, change: Callable[[Any, Any], object]
) -> Callable[[Path], Tensor]:
    """Change a row's initializer, or the graph around it."""

    def damage(bundle: Path) -> Tensor:
        row, path = _row(bundle, choose), bundle / "onnx" / f"{graph}.onnx"
        model = onnx.load(path, load_external_data=False)
        name = f"{row.name}.{part}" if part else row.name
        [tensor] = [each for each in model.graph.initializer if each.name == name]
        change(tensor, model.graph)
        path.write_bytes(model.SerializeToString())
        _reseal(bundle, lambda _: None)
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


def _scaled(factor: float) -> Callable[[dict[str, Any]], Any]:
    return lambda entry: entry["rounding"] | {"rms": entry["rounding"]["rms"] * factor}


_ASYMMETRIC = "w4a16-g32-asymmetric"
LIES: dict[str, tuple[str, Callable[[Path], Tensor], str]] = {
    "a code": ("w4a16-g32", _flip("codes", _is_exact_linear), "1 codes differ"),
    "a scale": ("w4a16-g32", _flip("scales", _is_exact_linear), "32 scales differ"),
    "a zero point": (_ASYMMETRIC, _flip("zero_points", _is_exact_linear), "32 codes differ"),
    "a norm": ("bf16", _flip("values", lambda row: row.role == "float"), "1 values differ"),
    "a code of a rounded row": ("bf16", _flip("codes", _is_requantised), "rms error is"),
    "another's scales": ("w4a16-g32", _swap_scales, "scales differ"),
    "an error told too small": (
        "bf16",
        _tell(_is_requantised, rounding=_scaled(0.99999)),
        "rms error is",
    ),
    "a largest error": (
        "bf16",
        _tell(_is_requantised, rounding=lambda e: e["rounding"] | {"max": 0.0}),
        "largest error is",
    ),
    "rounded, called exact": (
        "bf16",
        _tell(_is_requantised, outcome="exact", rounding=None),
        "called exact, but",
    ),
    "exact with an error": (
        "w4a16-g32",
        _tell(_is_exact_linear, rounding={"rms": 0.1, "max": 0.1}),
        "either exact or",
    ),
    "a share of zeros": (
        "bf16",
        _tell(_is_requantised, zeros={"source": 0.5, "stored": 0.5}),
        "share of zeros",
    ),
    "a pattern": (
        "bf16",
        _tell(_is_requantised, zeros=lambda e: e["zeros"] | {"pattern": "2:4"}),
        "pattern is not 2:4",
    ),
    "a row left out": ("w4a16-g32", _leave_out(_is_exact_linear), "the ledger is not whole"),
    "a shape": ("bf16", _tell(_is_requantised, shape=[1, 1]), "the ledger is not whole"),
    "blocks that do not fill a row": (
        "bf16",
        _tell(_is_requantised, block_size=7),
        "blocks of 7",
    ),
    "codes without a range": ("bf16", _tell(_is_requantised, codes=None), "a range is missing"),
    "a range too short": (
        "bf16",
        _tell(_is_requantised, codes=lambda e: e["codes"] | {"length": 3}),
        "3 bytes where",
    ),
    "a width": ("bf16", _tell(_is_requantised, bits=5), "4 or 8 bits"),
    "a graph's codes moved": (
        "w4a16-g32",
        _in_graph("model_q4_wasm", _is_exact_linear, "codes", _moved),
        "model_q4_wasm.onnx: reads its codes at bytes",
    ),
    "a graph's norm moved": (
        "bf16",
        _in_graph("model_q4_wasm", _is_norm, "", _moved),
        "reads its values at bytes",
    ),
    "a graph's scales cut short": (
        "w4a16-g32",
        _in_graph("model_q4_wasm", _is_exact_linear, "scales", _shortened),
        "does not read all of its scales",
    ),
    "a graph's codes of another": (
        "w4a16-g32",
        _in_graph("model_q4_wasm", lambda r: "0.self_attn.o_proj" in r.name, "codes", _swapped),
        "reads its codes at bytes",
    ),
    "a graph's codes in no shard": (
        "w4a16-g32",
        _in_graph("model_q4_wasm", _is_exact_linear, "codes", _elsewhere),
        "lies nowhere",
    ),
    "a graph's codes without an end": (
        "w4a16-g32",
        _in_graph("model_q4_wasm", _is_exact_linear, "codes", _lengthless),
        "lies nowhere",
    ),
    "a graph's own zero points": (
        _ASYMMETRIC,
        _in_graph("model_q4_wasm", _is_exact_linear, "zero_points", _moved),
        "reads its zero_points at bytes",
    ),
    "a graph's zero points that are no middles": (
        "w4a16-g32",
        _in_graph(
            "model_q4_wasm",
            _is_exact_linear,
            "zero_points",
            lambda tensor, _: setattr(_entry(tensor, "offset"), "value", "0"),
        ),
        "reads zero points that the ledger does not have",
    ),
    "a graph's initializer that has no row": (
        "w4a16-g32",
        _in_graph("model_q4_wasm", _is_exact_linear, "codes", _renamed),
        "no row of the ledger is about it",
    ),
    "a graph's codes in its own file": (
        "w4a16-g32",
        _in_graph("model_q4_wasm", _is_exact_linear, "codes", _inside),
        "does not read any of its codes",
    ),
    "a graph's codes unused": (
        "w4a16-g32",
        _in_graph("model_q4_wasm", _is_exact_linear, "codes", _unused),
        "does not read any of its codes",
    ),
    "a graph's norm in its own file": (
        "bf16",
        _in_graph("model_q4_wasm", _is_norm, "", _inside),
        "no graph over q4 reads it",
    ),
    "a graph's codes as signed": (
        "w4a16-g32",
        _in_graph("model_q4_wasm", _is_exact_linear, "codes", _of_type(onnx.TensorProto.INT4)),
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
    with pytest.raises(TabwrightError) as caught:
        prove(copy, tiny_checkpoint(variant))
    assert caught.value.code == "ledger-untrue"
    assert caught.value.exit_status == 3
    assert reason in str(caught.value)
    assert row.name in str(caught.value)


def test_an_order_of_columns_that_no_row_has_is_found(
    tiny_checkpoint: Factory, bundle_of: Factory, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle_of("gptq-act-order"), copy)
    path = copy / "onnx" / "model_q4_wasm.onnx"
    model = onnx.load(path, load_external_data=False)
    order = next(each for each in model.graph.initializer if each.name.startswith("permutation."))
    _moved(order, None)
    path.write_bytes(model.SerializeToString())
    _reseal(copy, lambda _: None)
    with pytest.raises(LedgerUntrue, match="order of columns that no row of the ledger has"):
        prove(copy, tiny_checkpoint("gptq-act-order"))


def test_a_graph_that_is_none_is_named(
    tiny_checkpoint: Factory, bundle_of: Factory, tmp_path: Path
) -> None:
    copy = tmp_path / "bundle"
    shutil.copytree(bundle_of("bf16"), copy)
    (copy / "onnx" / "model_q4_wasm.onnx").write_bytes(b"\xff" * 64)
    _reseal(copy, lambda _: None)
    with pytest.raises(LedgerUntrue, match=r"model_q4_wasm\.onnx: is no ONNX graph"):
        prove(copy, tiny_checkpoint("bf16"))


@pytest.mark.parametrize("role", ["linear", "tied", "float"])
def test_a_row_left_out_of_an_onnx_ledger_is_found(
    role: str, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    """No family says which weights such a graph waits for: the graph itself does."""
    folder, bundle = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2"), tmp_path / "out"
    export(folder, SETS, bundle, runtime=page)
    prove(bundle, folder)
    row = _leave_out(lambda row: row.role == role)(bundle)
    with pytest.raises(LedgerUntrue, match=re.escape(row.name)) as caught:
        prove(bundle, folder)
    assert "no row of the ledger is about it" in str(caught.value)


def test_another_checkpoint_is_refused(tiny_checkpoint: Factory, bundle_of: Factory) -> None:
    with pytest.raises(TabwrightError) as caught:
        prove(bundle_of("bf16"), tiny_checkpoint("fp16"))
    assert caught.value.code == "checkpoint-mismatch"


@pytest.mark.parametrize("settings", [{}, {"use_rslora": True, "use_dora": True}])
@pytest.mark.parametrize("variant", ["bf16", "w4a16-g32-asymmetric"])
def test_an_adapter_is_merged_once_more(
    variant: str, settings: dict[str, Any], tiny_checkpoint: Factory, tmp_path: Path
) -> None:
    base, page, bundle = tiny_checkpoint(variant), tmp_path / "page", tmp_path / "bundle"
    page.mkdir()
    (page / "index.html").write_text("<!doctype html>")
    alpha = {"alpha_pattern": {"layers.1.self_attn.q_proj": 40}}
    adapter = write_adapter(tiny_checkpoint("bf16"), tmp_path / "adapter", **alpha, **settings)
    export(base, SETS, bundle, runtime=page, adapter=adapter)
    proof = prove(bundle, base, adapter)
    # q and v of two layers, and the tied embedding; a plain base is rounded throughout.
    assert proof.weights["q8"].requantised == (5 if variant != "bf16" else 15)
    with pytest.raises(TabwrightError) as caught:
        prove(bundle, base)
    assert caught.value.code == "checkpoint-mismatch"


def test_the_command_tells_the_proof(
    tiny_checkpoint: Factory, bundle_of: Factory, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "verify", str(bundle_of("w4a16-g32")), "--against", str(tiny_checkpoint("w4a16-g32"))
    ]  # fmt: skip
    assert tabwright.call(arguments) == 0
    printed = capsys.readouterr().out
    assert tabwright.call([*arguments, "--format", "json"]) == 0
    proof = Proof.model_validate_json(capsys.readouterr().out)
    assert proof.weights["q4"].codes_compared > 0
    assert "codes changed" in printed
    for proven in proof.weights.values():
        # The tied embedding is rounded at every width.
        rms, largest = f"{proven.largest_rms:.2%}", f"{proven.largest_max:.2%}"
        assert rms != largest
        assert re.search(rf"{rms}\s+{largest}\s", printed)
    assert tabwright.call(["verify", "x", "--lora", "y"]) == 2
