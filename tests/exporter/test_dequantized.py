"""The CPU target's graph: heads in pieces, embeddings as codes, against transformers."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

from exporter.diagnose.points import find_points
from exporter.lower import dequantized
from exporter.pipeline import export
from exporter.prove import prove
from exporter.reference.model import load_bundle
from manifests.bundle import read_manifest
from targets import find_targets
from tests.decoder import Decoder

Factory = Callable[[str], Path]
IDS = np.random.default_rng(11).integers(3, 512, 24)


@pytest.mark.parametrize("head_bits", [4, 8])
@pytest.mark.parametrize("variant", ["bf16", "w4a16-g32-untied"])
def test_a_head_in_pieces_gives_the_same_logits(
    variant: str,
    head_bits: int,
    tiny_checkpoint: Factory,
    page: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dequantized, "PIECE_BYTES", 1 << 14)
    checkpoint, bundle = tiny_checkpoint(variant), tmp_path / "bundle"
    targets = find_targets(["wasm-q4"], head_bits=head_bits)
    manifest = export(checkpoint, targets, bundle, runtime=page)
    rows = manifest.weights["q4"].tensors
    [head] = [row for row in rows if row.role in ("head", "tied")]

    graph = onnx.load(bundle / "onnx/model_q4_wasm.onnx", load_external_data=False).graph
    shapes = {value.name: tuple(value.dims) for value in graph.initializer}
    pieces = [
        shapes[node.input[0]]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0].startswith(head.name)
    ]
    assert len(pieces) > 1
    assert sum(count for count, _ in pieces) == head.shape[0]
    assert all(4 * prod(piece) <= 1 << 14 for piece in pieces)
    prove(bundle, checkpoint)

    # A diagnosis compares modules' values; the logits stand for the head's.
    points = find_points(ir.load(bundle / "onnx/model_q4_wasm.onnx").graph, rows)
    assert head.name.rpartition(".")[0] not in {point.module for point in points}

    model = load_bundle(checkpoint, bundle, manifest.weights["q4"], "cpu")
    with torch.inference_mode():
        expected = model(torch.from_numpy(IDS[None])).logits[0].numpy()
    logits = Decoder(bundle, "wasm-q4").step(IDS, keep=0)
    assert np.abs(logits - expected).max() < 1e-3
    np.testing.assert_array_equal(logits.argmax(-1), expected.argmax(-1))


def test_no_embedding_is_dequantized(tiny_checkpoint: Factory, page: Path, tmp_path: Path) -> None:
    bundle = tmp_path / "bundle"
    export(tiny_checkpoint("w4a16-g32-untied"), find_targets(["wasm-q4"]), bundle, runtime=page)
    [embedding] = [
        row for row in read_manifest(bundle).weights["q4"].tensors if row.role == "embedding"
    ]
    graph = onnx.load(bundle / "onnx/model_q4_wasm.onnx", load_external_data=False).graph
    readers = {
        node.op_type
        for node in graph.node
        if any(name.startswith(embedding.name) for name in node.input)
    }
    assert "DequantizeLinear" not in readers
    assert "Gather" in readers
