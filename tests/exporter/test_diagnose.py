"""Which tensor is wrong: known damage, found with onnxruntime in the browser's place."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from exporter.diagnose.bisect import diagnose
from exporter.diagnose.errors import NotDiagnosable
from exporter.diagnose.points import find_points
from exporter.diagnose.view import conclusion
from exporter.pipeline import export
from exporter.reference.errors import CheckpointMismatch
from exporter.write.errors import FileChanged
from manifests.bundle import read_manifest
from manifests.diagnosis import Point
from targets import TARGETS
from tests.checkpoints import VARIANTS, write_checkpoint
from tests.damage import edit_graph, scale_up, without_resident
from tests.decoder import Decoder
from tests.families import FAMILY_CASES, write_family
from tests.onnx_folders import write_folder

Factory = Callable[[str], Path]
WASM = "wasm-q4"


def run(bundle: Path, target: str, ids: Sequence[int]) -> NDArray[np.float32]:
    return Decoder(bundle, target).step(np.array(ids, np.int64), keep=0)


@pytest.fixture(scope="module")
def exported(
    tiny_checkpoint: Factory, page: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    checkpoint = tiny_checkpoint("w4a16-g32")
    bundle = tmp_path_factory.mktemp("diagnose") / "bundle"
    export(checkpoint, (TARGETS[WASM],), bundle, runtime=page)
    return checkpoint, bundle


def test_a_healthy_bundle_has_nothing_to_name(exported: tuple[Path, Path]) -> None:
    checkpoint, bundle = exported
    found = diagnose(bundle, checkpoint, WASM, run, device="cpu")
    assert (found.first, found.tensors, found.changed) == (None, (), ())
    # The text, both layers, the last norm, the logits.
    assert [each.point.layer for each in found.layers] == [0, 1, None, None]
    assert all(each.relative < 1e-5 for each in found.layers)
    assert "no tensor is beyond" in conclusion(found)


@pytest.mark.parametrize(
    "module",
    [
        "model.layers.0.self_attn.k_proj",
        "model.layers.1.mlp.up_proj",
        "model.layers.1.mlp.down_proj",
    ],
)
def test_a_damaged_weight_is_named(
    exported: tuple[Path, Path], tmp_path: Path, module: str
) -> None:
    checkpoint, bundle = exported
    damaged = scale_up(bundle, tmp_path / "damaged", f"{module}.weight", 1.25)
    found = diagnose(damaged, checkpoint, WASM, run, device="cpu")
    assert str(found.first) == f"{module} (output)"
    assert found.changed == (f"{module}.weight",)
    # A linear is linear: every value of its output is a quarter too large.
    (wrong,) = (each for each in found.tensors if each.point == found.first)
    assert wrong.relative == pytest.approx(0.25, rel=1e-2)
    assert f"not the checkpoint's: {module}.weight" in conclusion(found)


def test_half_precision_has_a_tolerance_of_its_own(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    checkpoint, target = tiny_checkpoint("w4a16-g32"), "webgpu-q4f16"
    bundle = tmp_path / "bundle"
    export(checkpoint, (TARGETS[target],), bundle, runtime=page)
    # onnxruntime's CPU cannot write a cache in place: the plain graph stands for both.
    plain = without_resident(bundle, tmp_path / "plain")
    assert diagnose(plain, checkpoint, target, run, device="cpu").first is None
    module = "model.layers.1.self_attn.v_proj"
    damaged = scale_up(plain, tmp_path / "damaged", f"{module}.weight", 1.25)
    found = diagnose(damaged, checkpoint, target, run, device="cpu")
    assert str(found.first) == f"{module} (output)"


def test_a_wrong_operator_is_told_from_a_wrong_weight(
    exported: tuple[Path, Path], tmp_path: Path
) -> None:
    def blur(graph: ir.Graph) -> None:
        norm = graph.initializers["model.layers.1.post_attention_layernorm.weight"]
        (usage,) = norm.uses()
        usage.node.attributes["epsilon"] = ir.AttrFloat32("epsilon", 0.5)

    checkpoint, bundle = exported
    damaged = edit_graph(bundle, tmp_path / "damaged", WASM, blur)
    found = diagnose(damaged, checkpoint, WASM, run, device="cpu")
    assert str(found.first) == "model.layers.1.post_attention_layernorm (output)"
    assert found.changed == ()
    assert "computes it differently" in conclusion(found)


def test_attention_is_told_from_its_projections(
    exported: tuple[Path, Path], tmp_path: Path
) -> None:
    module = "model.layers.1.self_attn.o_proj"
    ledger = read_manifest(exported[1]).weights["q4"].tensors

    def turn(graph: ir.Graph) -> None:
        point = Point(module=module, side="input", layer=1)
        attended = find_points(graph, ledger)[point]
        (usage,) = attended.uses()
        turned = ir.node("Neg", [attended])
        graph.insert_before(usage.node, turned)
        usage.node.replace_input_with(usage.idx, turned.outputs[0])

    checkpoint, bundle = exported
    damaged = edit_graph(bundle, tmp_path / "damaged", WASM, turn)
    found = diagnose(damaged, checkpoint, WASM, run, device="cpu")
    assert str(found.first) == f"{module} (input)"


@pytest.mark.parametrize("tied", [True, False])
def test_a_head_in_pieces_is_compared_by_its_logits(tied: bool, page: Path, tmp_path: Path) -> None:
    variant = replace(VARIANTS["w4a16-g32"], vocabulary=4096, tied=tied)
    checkpoint = write_checkpoint(variant, tmp_path / "checkpoint")
    export(checkpoint, (TARGETS[WASM],), tmp_path / "bundle", runtime=page)
    found = diagnose(tmp_path / "bundle", checkpoint, WASM, run, device="cpu")
    assert found.first is None, conclusion(found)
    assert str(found.layers[-1].point) == "logits (output)"


#: What the others are made of: soft caps, short convolutions, fused projections, q/k norms.
@pytest.mark.parametrize("case", ["gemma2", "lfm2", "phi3", "qwen3"])
def test_every_family_has_tensors_to_compare(case: str, page: Path, tmp_path: Path) -> None:
    checkpoint = write_family(FAMILY_CASES[case], tmp_path / "checkpoint")
    export(checkpoint, (TARGETS[WASM],), tmp_path / "bundle", runtime=page)
    found = diagnose(tmp_path / "bundle", checkpoint, WASM, run, device="cpu")
    assert found.first is None, conclusion(found)
    layers = {each.point.layer for each in found.layers} - {None}
    assert layers == set(range(len(layers)))
    assert len(layers) >= 2


def test_a_graph_that_was_changed_is_named(exported: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, bundle = exported
    damaged = Path(shutil.copytree(bundle, tmp_path / "damaged"))
    graph = damaged / read_manifest(bundle).targets[WASM].graph
    graph.write_bytes(b"\xff" * graph.stat().st_size)
    with pytest.raises(FileChanged, match=graph.name):
        diagnose(damaged, checkpoint, WASM, run, device="cpu")


def test_the_checkpoint_must_be_the_bundle_s(
    exported: tuple[Path, Path], tiny_checkpoint: Factory
) -> None:
    with pytest.raises(CheckpointMismatch):
        diagnose(exported[1], tiny_checkpoint("bf16"), WASM, run, device="cpu")


def test_a_graph_of_another_exporter_has_no_modules(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    export(folder, (TARGETS[WASM],), tmp_path / "bundle", runtime=page)
    with pytest.raises(NotDiagnosable, match="another exporter"):
        diagnose(tmp_path / "bundle", folder, WASM, run, device="cpu")
