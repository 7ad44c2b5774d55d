"""Zeros of pruned checkpoints: counted, and still zero in every target."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import brotli
import numpy as np
import pytest
import torch
import zstandard
from safetensors.torch import load_file, save_file

import tabwright
from exporter.checkpoint.folder import SINGLE
from exporter.pipeline import export
from exporter.prove import prove
from exporter.quant.census import CensusBuilder, zeros_of_codes
from exporter.reference.weights import bundle_weights
from exporter.transfer import Encoded, EncoderMissing, Transfer, measure_transfer
from manifests.bundle import Zeros, read_manifest
from targets import TARGETS
from tests.exporter.test_checkpoint import decompressed

Factory = Callable[[str], Path]
Export = Callable[[Path], Path]


@pytest.fixture
def export_all(tmp_path: Path) -> Export:
    def bundle(checkpoint: Path) -> Path:
        page = tmp_path / "page"
        page.mkdir(exist_ok=True)
        (page / "index.html").write_text("<!doctype html>")
        export(checkpoint, tuple(TARGETS.values()), tmp_path / "bundle", runtime=page)
        return tmp_path / "bundle"

    return bundle


def _half(weight: torch.Tensor) -> torch.Tensor:
    """Zero the smaller half of each row, as Wanda does at 50 %."""
    order = weight.abs().argsort(dim=1)
    return weight.scatter(1, order[:, : weight.shape[1] // 2], 0)


def _two_of_four(weight: torch.Tensor) -> torch.Tensor:
    """Zero the two smallest of every four neighbours."""
    groups = weight.reshape(-1, 4)
    order = groups.abs().argsort(dim=1)
    return groups.scatter(1, order[:, :2], 0).reshape(weight.shape)


PRUNED: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], str | None]] = {
    "unstructured": (_half, None),
    "2:4": (_two_of_four, "2:4"),
}


def _pruned(source: Path, folder: Path, prune: Callable[[torch.Tensor], torch.Tensor]) -> Path:
    shutil.copytree(source, folder)
    tensors = load_file(folder / "model.safetensors")
    for name, tensor in tensors.items():
        if "_proj" in name:
            tensors[name] = prune(tensor.float()).to(tensor.dtype)
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("kind", PRUNED)
def test_zeros_stay_exactly_zero_in_every_target(
    kind: str, tiny_checkpoint: Factory, tmp_path: Path, export_all: Export
) -> None:
    prune, pattern = PRUNED[kind]
    checkpoint = _pruned(tiny_checkpoint("bf16"), tmp_path / "pruned", prune)
    source = {name: t.float().numpy() for name, t in load_file(checkpoint / SINGLE).items()}
    bundle = export_all(checkpoint)
    manifest = read_manifest(bundle)
    assert {entry.weights for entry in manifest.targets.values()} == set(manifest.weights)
    for weights in manifest.weights.values():
        for row, stored in bundle_weights(bundle, weights):
            zeros = source[row.name] == 0
            assert not stored[zeros].any()
            if row.role == "linear":
                assert row.zeros is not None
                assert row.zeros.source == pytest.approx(zeros.mean())
                assert row.zeros.stored == pytest.approx((stored == 0).mean())
                assert row.zeros.source >= 0.5
                assert row.zeros.pattern == pattern
            else:
                assert row.zeros is None or row.zeros.pattern is None
    assert prove(bundle, checkpoint).weights["q8"].zeros_before > 0


def test_zeros_of_carried_codes_are_counted(tiny_checkpoint: Factory, export_all: Export) -> None:
    checkpoint = tiny_checkpoint("w4a16-g32-asymmetric")
    source = decompressed(checkpoint)
    for weights in read_manifest(export_all(checkpoint)).weights.values():
        for row in weights.tensors:
            if row.role == "linear":
                share = (source[row.name] == 0).double().mean().item()
                assert share > 0
                assert row.zeros == Zeros(source=share, stored=share)


def test_the_ledger_prints_its_totals(
    tiny_checkpoint: Factory,
    tmp_path: Path,
    export_all: Export,
    capsys: pytest.CaptureFixture[str],
) -> None:
    bundle = export_all(_pruned(tiny_checkpoint("bf16"), tmp_path / "pruned", _two_of_four))
    assert tabwright.call(["inspect", str(bundle), "--ledger"]) == 0
    printed = capsys.readouterr().out
    for name in ("q4", "q8"):
        assert f"weights {name}: 5 tensors exact, 15 requantised; zeros of 15 matrices: " in printed
    assert "2:4 in 14" in printed
    assert "50.0% → " in printed
    told = _cells(printed)
    for weights in read_manifest(bundle).weights.values():
        for row in weights.tensors:
            if row.rounding is None:
                assert [row.name, "exact"] in [[line[0], line[4]] for line in told]
            else:
                errors = [f"{row.rounding.rms:.2%}", f"{row.rounding.max:.2%}"]
                assert [row.name, *errors] in [[line[0], *line[5:7]] for line in told]


def _cells(printed: str) -> list[list[str]]:
    """The ledger's table, whose columns are two spaces apart or more."""
    rows = (re.split(r"\s{2,}", line.strip()) for line in printed.splitlines())
    return [row for row in rows if len(row) >= 5]


def test_sparsity_pays_on_the_wire(
    tiny_checkpoint: Factory,
    tmp_path: Path,
    export_all: Export,
    capsys: pytest.CaptureFixture[str],
) -> None:
    dense = tiny_checkpoint("bf16")
    sizes = []
    for checkpoint in (dense, _pruned(dense, tmp_path / "pruned", _half)):
        bundle = export_all(checkpoint)
        assert tabwright.call(["inspect", str(bundle), "--transfer", "--format", "json"]) == 0
        measured = Transfer.model_validate_json(capsys.readouterr().out)
        manifest = read_manifest(bundle)
        stored = {file.path: (bundle / file.path).read_bytes() for file in manifest.files}
        for name, weights in manifest.weights.items():
            shards = [stored[path] for path in weights.shards]
            assert measured.weights[name]["br"] == Encoded(
                level=5,
                plain=sum(map(len, shards)),
                compressed=sum(len(brotli.compress(shard, quality=5)) for shard in shards),
            )
            whole = [zstandard.ZstdCompressor(level=9).compress(shard) for shard in shards]
            told = measured.weights[name]["zstd"].compressed
            assert told == pytest.approx(sum(map(len, whole)), rel=0.01)
        sizes.append({name: e["br"].compressed for name, e in measured.weights.items()})
        shutil.rmtree(bundle)
    for name, size in sizes[0].items():
        assert sizes[1][name] < 0.95 * size
    assert tabwright.call(["inspect", str(dense), "--transfer"]) == 2


def test_a_missing_encoder_is_named(
    tiny_checkpoint: Factory, export_all: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = export_all(tiny_checkpoint("bf16"))
    monkeypatch.setitem(sys.modules, "brotli", None)
    with pytest.raises(EncoderMissing, match="brotli"):
        measure_transfer(bundle, read_manifest(bundle))


def _census(*blocks: list[list[int]]) -> Zeros:
    builder = CensusBuilder()
    for block in blocks:
        zeros = np.array(block) == 0
        builder.add(zeros, zeros)
    return builder.build()


def test_the_pattern_holds_in_every_block_of_rows() -> None:
    pair, lone = [[0, 1, 0, 1, 2, 0, 0, 0]], [[0, 1, 1, 1, 0, 0, 0, 0]]
    assert _census(pair, pair) == Zeros(source=5 / 8, stored=5 / 8, pattern="2:4")
    assert _census(pair, lone) == Zeros(source=10 / 16, stored=10 / 16)
    # Two pairs, but neither in a group that starts a row.
    assert _census([[1, 1, 1, 0, 0, 1, 1, 1]]).pattern is None
    assert _census([[0, 0, 0, 0, 0, 0]]).pattern is None


def test_source_and_stored_are_told_apart() -> None:
    builder = CensusBuilder()
    source: Any = np.array([[True, False, False, False]])
    builder.add(source, np.array([[True, True, True, False]]))
    assert builder.build() == Zeros(source=0.25, stored=0.75, pattern="2:4")


def test_a_code_is_zero_at_its_zero_point_or_under_a_zero_scale() -> None:
    codes = np.array([[8, 3, 8, 9], [8, 3, 1, 9]], np.uint8)
    scales = np.array([[1, 0.5], [2, 0]], np.float32)
    symmetric = zeros_of_codes(codes, scales, None, 4)
    assert symmetric.tolist() == [[True, False, True, False], [True, False, True, True]]
    points = np.array([[3, 9], [3, 9]], np.uint8)
    asymmetric = zeros_of_codes(codes, scales, points, 4)
    assert asymmetric.tolist() == [[False, True, False, True], [False, True, True, True]]
