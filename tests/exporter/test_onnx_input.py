"""ONNX decoders of another exporter, against transformers and against their own graph.

The graph is optimum's own; see tests/onnx_folders.py.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from transformers import GPT2LMHeadModel

from exporter import pipeline
from exporter.checkpoint import Dense, open_checkpoint
from exporter.graph.declared import WrongActivations
from exporter.graph.skeleton import build_skeleton
from exporter.optimum.errors import OptimumReadsFloats
from exporter.pipeline import export
from exporter.prove import prove
from exporter.prove.errors import LedgerUntrue
from exporter.reference.errors import OnnxOnCpu
from exporter.reference.make import make_reference
from exporter.reference.model import load_bundle
from exporter.reference.models import models_of
from manifests.bundle import read_manifest
from targets import find_targets
from tests.decoder import Decoder
from tests.onnx_folders import GPT2, TOKENIZER, write_checkpoint, write_folder

Factory = Callable[[str], Path]
FLOAT32 = find_targets(["webgpu-q4", "wasm-q4", "webgpu-q8"])
GPU = "webgpu-q4"
IDS = np.random.default_rng(7).integers(2, 512, 24)
#: Logits of the model reach about 4; four orders below what 4 bits change in them.
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def folder(tiny_checkpoint: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tiny_checkpoint("bf16"), tmp_path_factory.mktemp("onnx") / "gpt2")


@pytest.fixture(scope="module")
def bundle(folder: Path, page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    export(folder, FLOAT32, out, runtime=page)
    return out


@pytest.fixture
def optimum_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the graph that optimum did write in the place of a run of it."""

    @contextmanager
    def written(*_: object) -> Iterator[Path]:
        yield GPT2 / "model.onnx"

    monkeypatch.setattr(pipeline, "optimum_graph", written)


def _logits(bundle: Path, target: str) -> NDArray[np.float32]:
    decoder = Decoder(bundle, target)
    # In two steps, so that the cache is read too.
    return np.concatenate([decoder.step(IDS[:15], keep=0), decoder.step(IDS[15:], keep=0)])


@pytest.mark.parametrize("target", [target.name for target in FLOAT32])
def test_logits_equal_the_original_graph_s(target: str, folder: Path, bundle: Path) -> None:
    manifest = read_manifest(bundle)
    models = models_of(folder, open_checkpoint(folder), "cpu", None)
    model = models.bundle(bundle, manifest.weights[manifest.targets[target].weights])
    expected = model(torch.from_numpy(IDS[None])).logits[0].numpy()
    assert np.abs(_logits(bundle, target) - expected).max() < TOLERANCE


def test_the_original_graph_is_transformers_model(folder: Path) -> None:
    models = models_of(folder, open_checkpoint(folder), "cpu", None)
    found = models.checkpoint(torch.float32)(torch.from_numpy(IDS[None])).logits[0].numpy()
    model = GPT2LMHeadModel.from_pretrained(GPT2)
    with torch.inference_mode():
        expected = model(torch.from_numpy(IDS[None])).logits[0].numpy()
    assert np.abs(found - expected).max() < TOLERANCE


def test_the_last_positions_can_be_asked_for(bundle: Path) -> None:
    last = Decoder(bundle, "webgpu-q4").step(IDS, keep=2)
    np.testing.assert_allclose(last, _logits(bundle, "webgpu-q4")[-2:], atol=TOLERANCE)


def test_the_interface_is_our_own(bundle: Path) -> None:
    graph = onnx.load(bundle / "onnx" / "model_q4.onnx", load_external_data=False).graph
    inputs = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in graph.input
    }
    past = ["batch_size", 2, "past_sequence_length", 8]
    assert inputs == {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "total_sequence_length"],
        "past_key_values.0.key": past,
        "past_key_values.0.value": past,
        "num_logits_to_keep": [],
    }
    assert {value.name for value in graph.output} == {"logits", "present.0.key", "present.0.value"}


def test_the_ledger_goes_by_the_initializers_names(bundle: Path) -> None:
    model = onnx.load(GPT2 / "model.onnx")
    shapes = {each.name: tuple(each.dims) for each in model.graph.initializer}
    rows = {row.name: row for row in read_manifest(bundle).weights["q4"].tensors}
    # The head is written a second time, as [K, N], under a name of its own.
    (head,) = shapes.keys() - rows.keys()
    assert shapes[head] == (16, 512)
    for name, row in rows.items():
        assert shapes[name] == (row.shape[::-1] if row.transposed else row.shape)
    assert rows["transformer.wte.weight"].role == "tied"
    assert rows["transformer.wpe.weight"].role == "float"
    linears = {name for name, row in rows.items() if row.role == "linear"}
    assert linears == {
        f"transformer.h.0.{part}.weight"
        for part in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    }
    assert all(rows[name].transposed and rows[name].bits == 4 for name in linears)


def test_weights_beside_the_file_make_the_same_shards(
    tiny_checkpoint: Factory, bundle: Path, page: Path, tmp_path: Path
) -> None:
    outside = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    model = onnx.load(outside / "model.onnx")
    onnx.save(
        model,
        outside / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        # A tensor of few bytes stays inside: both ways in one file.
        size_threshold=128,
    )
    assert (outside / "model.onnx_data").stat().st_size > 50_000
    manifest = export(outside, FLOAT32, tmp_path / "out", runtime=page)
    expected = {name: each.digest for name, each in read_manifest(bundle).weights.items()}
    assert {name: each.digest for name, each in manifest.weights.items()} == expected
    prove(tmp_path / "out", outside)


def test_an_untied_head_is_a_weight_of_its_own(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    def change(model: onnx.ModelProto) -> None:
        head = next(t for t in model.graph.initializer if tuple(t.dims) == (16, 512))
        values = onnx.numpy_helper.to_array(head).copy()
        values[0, 0] += 1.0
        head.raw_data = values.tobytes()

    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2", change)
    manifest = export(folder, FLOAT32, tmp_path / "out", runtime=page)
    roles = [row.role for row in manifest.weights["q4"].tensors]
    assert (roles.count("head"), roles.count("embedding"), roles.count("tied")) == (1, 1, 0)
    prove(tmp_path / "out", folder)


def test_the_ledger_is_proven_by_the_onnx_package(folder: Path, bundle: Path) -> None:
    proof = prove(bundle, folder)
    # Four linears and the tied embedding; positions, three norms and four biases.
    assert proof.weights["q4"].requantised == 5
    assert proof.weights["q4"].exact == 1 + 3 * 2 + 4


def test_a_ledger_that_is_not_transposed_is_found_out(
    folder: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exporter.prove import ledger

    monkeypatch.setattr(ledger, "turned", lambda matrix: matrix)
    with pytest.raises(LedgerUntrue, match="c_attn"):
        prove(bundle, folder)


def test_the_reference_is_the_original_graph_s(folder: Path, bundle: Path, tmp_path: Path) -> None:
    reference = make_reference(
        folder, bundle, tmp_path / "reference.json", repetitions=1, decode_tokens=2
    )
    assert reference.checkpoint_read_by == "onnxruntime"
    assert reference.device.device == "cpu"
    assert reference.answers["q8"].export_loss.kl_mean < reference.answers["q4"].export_loss.kl_mean


def test_a_reference_of_a_graph_is_not_promised_on_cuda(folder: Path) -> None:
    with pytest.raises(OnnxOnCpu):
        models_of(folder, open_checkpoint(folder), "cuda", None)


def test_a_float32_graph_is_not_passed_off_as_float16(
    folder: Path, page: Path, tmp_path: Path
) -> None:
    with pytest.raises(WrongActivations, match="float32"):
        export(folder, find_targets(["webgpu-q4f16"]), tmp_path / "out", runtime=page)


@pytest.mark.usefixtures("optimum_wrote")
def test_optimum_s_graph_goes_over_the_checkpoint_s_own_weights(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    checkpoint = write_checkpoint(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    out = tmp_path / "out"
    manifest = export(checkpoint, FLOAT32, out, runtime=page, graph="optimum")
    assert {row.name for row in manifest.weights["q4"].tensors} == set(
        open_checkpoint(checkpoint).weights
    )
    prove(out, checkpoint)
    for target, entry in manifest.targets.items():
        model = load_bundle(checkpoint, out, manifest.weights[entry.weights], "cpu")
        with torch.inference_mode():
            expected = model(torch.from_numpy(IDS[None])).logits[0].numpy()
        assert np.abs(_logits(out, target) - expected).max() < TOLERANCE


@pytest.mark.parametrize("variant", ["w4a16-g32", "sparse-bitmask", "onnx"])
def test_optimum_is_given_plain_floats_only(
    variant: str, tiny_checkpoint: Factory, folder: Path, page: Path, tmp_path: Path
) -> None:
    checkpoint = folder if variant == "onnx" else tiny_checkpoint(variant)
    with pytest.raises(OptimumReadsFloats):
        export(checkpoint, FLOAT32, tmp_path / "out", runtime=page, graph="optimum")
    assert not (tmp_path / "out").exists()


def test_operators_that_our_own_graphs_have_are_let_through(
    tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    source = open_checkpoint(tiny_checkpoint("bf16"))
    skeleton = build_skeleton(source.path / "config.json", source.config, "float32", 256)
    for name, value in skeleton.graph.initializers.items():
        if value.const_value is None:
            weight = source.weight(name)
            assert isinstance(weight, Dense)
            value.const_value = ir.tensor(weight.values(), name=name)
    folder = tmp_path / "llama"
    folder.mkdir()
    for name in ("config.json", *TOKENIZER):
        shutil.copy(source.path / name, folder)
    ir.save(skeleton, folder / "model.onnx")
    export(folder, FLOAT32, tmp_path / "read", runtime=page, context_length=256)
    export(source.path, FLOAT32, tmp_path / "declared", runtime=page, context_length=256)
    for target in FLOAT32:
        read, declared = (_logits(tmp_path / out, target.name) for out in ("read", "declared"))
        np.testing.assert_array_equal(read, declared)
    assert read_manifest(tmp_path / "read").targets[GPU].resident_graph is not None
    # The resident graph has no mask: where more than the attention asks for it, there is none.
    _ask_for_mask(skeleton.graph)
    ir.save(skeleton, folder / "model.onnx")
    export(folder, find_targets([GPU]), tmp_path / "masked", runtime=page, context_length=256)
    assert read_manifest(tmp_path / "masked").targets[GPU].resident_graph is None
    masked, declared = (_logits(tmp_path / out, GPU) for out in ("masked", "declared"))
    np.testing.assert_allclose(masked, declared, atol=TOLERANCE)


def _ask_for_mask(graph: ir.Graph) -> None:
    """Multiply the first queries by the mask's largest value, which is 1."""
    mask = next(value for value in graph.inputs if value.name == "attention_mask")
    attention = next(node for node in graph if node.op_type == "GroupQueryAttention")
    queries = attention.inputs[0]
    assert queries is not None
    most = ir.node("ReduceMax", [mask], {"keepdims": 0})
    one = ir.node("Cast", [most.outputs[0]], {"to": ir.DataType.FLOAT.value})
    same = ir.node("Mul", [queries, one.outputs[0]])
    for node, name in ((most, "most"), (one, "one"), (same, "same")):
        node.outputs[0].name = f"asked.{name}"
    same.outputs[0].shape, same.outputs[0].type = queries.shape, queries.type
    graph.insert_before(attention, [most, one, same])
    attention.replace_input_with(0, same.outputs[0])
