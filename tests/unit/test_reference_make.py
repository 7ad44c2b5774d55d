"""A reference of real exports: what it says, and what it refuses."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter.pipeline import export
from exporter.reference.errors import (
    CheckpointMismatch,
    LedgerMismatch,
    NoCuda,
    OutOfMemory,
    ReferenceMisplaced,
)
from exporter.write.errors import FileChanged
from manifests.bundle import MANIFEST_NAME, Manifest, read_manifest
from manifests.reference import Reference
from targets import find_targets
from tests.checkpoints import edit_config

Bundles = Callable[[str], tuple[Path, Path]]


@pytest.fixture(scope="module")
def exported(
    tiny_checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Bundles:
    """Checkpoint and bundle of a variant, for the targets of both weight sets."""
    runtime = tmp_path_factory.mktemp("runtime")
    (runtime / "index.html").write_text("<!doctype html>", "utf-8")
    made: dict[str, tuple[Path, Path]] = {}

    def bundle(variant: str) -> tuple[Path, Path]:
        if variant not in made:
            checkpoint = tiny_checkpoint(variant)
            out = tmp_path_factory.mktemp("bundle") / variant
            export(checkpoint, find_targets(["wasm-q4", "webgpu-q8"]), out, runtime=runtime)
            made[variant] = checkpoint, out
        return made[variant]

    return bundle


@pytest.fixture
def small_suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("suite") / "suite.json"
    text = {"name": "one", "language": "en", "text": "A single line."}
    suite = {"tokens": [text], "chats": [], "scored": [text], "greedy": []}
    path.write_text(json.dumps(suite), "utf-8")
    return path


@pytest.mark.parametrize(
    ("variant", "exact"),
    [
        ("bf16-untied", []),
        ("w4a16-g32", ["q4", "q8"]),
        ("w4a16-g32-untied", ["q4", "q8"]),
        ("w4a16-g32-asymmetric", ["q4", "q8"]),
        ("w8a16-channel", ["q8"]),
    ],
)
def test_the_ledger_tells_the_truth_about_what_is_exact(
    exported: Bundles, variant: str, exact: list[str]
) -> None:
    """Parameters loaded from shards equal transformers' own, bit for bit, where claimed."""
    import torch

    from exporter.reference.model import load_bundle, load_checkpoint, read_config

    checkpoint, bundle = exported(variant)
    theirs = load_checkpoint(checkpoint, read_config(checkpoint), torch.float32, "cpu")
    expected = theirs.state_dict()
    for name, weights in read_manifest(bundle).weights.items():
        ours = load_bundle(checkpoint, bundle, weights, "cpu").state_dict()
        linears = [row for row in weights.tensors if row.role == "linear"]
        assert linears
        assert {row.outcome for row in linears} == ({"exact"} if name in exact else {"requantised"})
        for row in weights.tensors:
            same = torch.equal(ours[row.name], expected[row.name])
            assert same == (row.outcome == "exact"), row.name
            if row.rounding is not None:
                off = ours[row.name] - expected[row.name]
                rms = float(off.norm() / expected[row.name].norm())
                assert row.rounding.rms == pytest.approx(rms, rel=1e-3)


def test_what_is_written(exported: Bundles, tmp_path: Path) -> None:
    import numpy as np
    import torch
    from safetensors.numpy import load_file

    from exporter.reference.make import make_reference
    from exporter.reference.model import load_checkpoint, read_config

    checkpoint, bundle = exported("w4a16-g32")
    out = tmp_path / "here" / "reference.json"
    reference = make_reference(
        checkpoint, bundle, out, device="cpu", repetitions=1, decode_tokens=2
    )
    assert Reference.load(out) == reference
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "reference.json",
        "reference.safetensors",
    ]
    manifest = read_manifest(bundle)
    assert reference.source_digest == manifest.source.digest
    raw = (out.parent / reference.logits_file).read_bytes()
    assert hashlib.sha256(raw).hexdigest() == reference.logits_sha256
    logits = load_file(out.parent / reference.logits_file)
    assert set(reference.answers) == {"q4", "q8"}

    theirs = load_checkpoint(checkpoint, read_config(checkpoint), torch.float32, "cpu")
    for name, answers in reference.answers.items():
        assert answers.weights_digest == manifest.weights[name].digest
        assert answers.export_loss.positions == sum(len(t.ids) for t in reference.scored)
        assert len(answers.greedy) == 4
        # The head alone was rounded, to 8 bits: a small loss, but not none.
        largest = 0.0
        for text in reference.scored:
            with torch.inference_mode():
                expected = theirs(input_ids=torch.tensor([text.ids])).logits[0].numpy()
            stored = logits[answers.logits[text.name]]
            assert stored.dtype == np.float32
            largest = max(largest, float(np.abs(stored - expected).max()))
        assert answers.export_loss.max_abs_logit == pytest.approx(largest, abs=1e-4)
        assert 1e-4 < largest < 0.5
    assert reference.speed.dtype == "float32"
    assert reference.speed.peak_kind == "process-rss"
    assert reference.device.threads == torch.get_num_threads()


def test_an_older_reference_gives_way_and_a_failed_one_leaves_nothing(
    exported: Bundles, small_suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from exporter.reference import make, output

    checkpoint, bundle = exported("w4a16-g32")
    out = tmp_path / "reference.json"
    older = {"format": "tabwright-reference", "version": 0, "logits_file": "reference.safetensors"}
    out.write_text(json.dumps(older), "utf-8")
    (tmp_path / "reference.safetensors").write_text("old", "utf-8")
    settings: Any = {"device": "cpu", "suite": small_suite, "repetitions": 1, "decode_tokens": 1}
    make.make_reference(checkpoint, bundle, out, **settings)
    assert json.loads(out.read_text("utf-8"))["version"] == 1

    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full_disk(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(output, "save_file", full_disk)
    with pytest.raises(OSError, match="no space"):
        make.make_reference(checkpoint, bundle, out, **settings)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == written


_OLDER = {"format": "tabwright-reference", "logits_file": "others.safetensors"}


@pytest.mark.parametrize(
    ("name", "there", "reason"),
    [
        ("reference.v1", {}, "does not end in .json"),
        ("x.safetensors", {}, "does not end in .json"),
        ("model.json", {"model.safetensors": "weights"}, "model.safetensors, where its logits go"),
        ("config.json", {"config.json": "{}"}, "what is there is no reference"),
        ("text.json", {"text.json": "{"}, "what is there is no reference"),
        (
            "reference.json",
            {"reference.json": json.dumps(_OLDER), "reference.safetensors": "another's"},
            "reference.safetensors, where its logits go",
        ),
    ],
)
def test_a_reference_takes_no_other_file_s_place(
    name: str, there: dict[str, str], reason: str, tmp_path: Path
) -> None:
    from exporter.reference.make import make_reference

    for file, text in there.items():
        (tmp_path / file).write_text(text, "utf-8")
    # Before anything is read: neither checkpoint nor bundle is there.
    with pytest.raises(ReferenceMisplaced, match=re.escape(reason)):
        make_reference(tmp_path / "none", tmp_path / "none", tmp_path / name)
    assert {path.name: path.read_text("utf-8") for path in tmp_path.iterdir()} == there


def test_another_checkpoint_is_refused(exported: Bundles, tmp_path: Path) -> None:
    from exporter.reference.make import make_reference

    checkpoint, bundle = exported("w4a16-g32")
    other = Path(shutil.copytree(checkpoint, tmp_path / "other"))
    edit_config(other, rms_norm_eps=1e-6)
    with pytest.raises(CheckpointMismatch, match="not the checkpoint"):
        make_reference(other, bundle, tmp_path / "reference.json", device="cpu")
    assert not (tmp_path / "reference.json").exists()


def test_a_damaged_bundle_is_refused(exported: Bundles, tmp_path: Path) -> None:
    from exporter.reference.make import make_reference

    checkpoint, bundle = exported("w4a16-g32")
    damaged = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    shard = damaged / read_manifest(bundle).weights["q4"].shards[0]
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(FileChanged, match=shard.name):
        make_reference(checkpoint, damaged, tmp_path / "reference.json", device="cpu")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda rows: rows[1:], "not in the ledger"),
        (lambda rows: (*rows, rows[0]), "there twice"),
        (lambda rows: (rows[0].model_copy(update={"name": "lm_hat.weight"}), *rows[1:]), "unknown"),
    ],
)
def test_a_ledger_that_is_not_the_model_is_refused(
    exported: Bundles, change: Callable[[Any], Any], reason: str
) -> None:
    from exporter.reference.model import load_bundle

    checkpoint, bundle = exported("w4a16-g32")
    manifest: Manifest = read_manifest(bundle)
    weights = manifest.weights["q4"]
    wrong = weights.model_copy(update={"tensors": tuple(change(weights.tensors))})
    with pytest.raises(LedgerMismatch, match=reason):
        load_bundle(checkpoint, bundle, wrong, "cpu")
    assert (bundle / MANIFEST_NAME).is_file()


def test_cuda_is_not_replaced_in_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from exporter.reference.model import choose_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == "cpu"
    with pytest.raises(NoCuda):
        choose_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == "cuda"
    assert choose_device("cpu") == "cpu"


def test_every_way_of_running_out_of_memory_has_one_name() -> None:
    import torch

    from exporter.reference.model import memory_errors_named

    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte"),
    ):
        with (
            pytest.raises(OutOfMemory, match="not enough memory on cpu"),
            memory_errors_named(Path("c"), "cpu"),
        ):
            raise error
    with (
        pytest.raises(RuntimeError, match="another fault"),
        memory_errors_named(Path("c"), "cpu"),
    ):
        raise RuntimeError("another fault")


def test_an_architecture_that_transformers_cannot_run_is_named(
    exported: Bundles, tmp_path: Path
) -> None:
    from exporter.reference.errors import NotRunnable
    from exporter.reference.model import read_config

    checkpoint = Path(shutil.copytree(exported("w4a16-g32")[0], tmp_path / "checkpoint"))
    for model_type in ("no-such-model", "vit"):
        edit_config(checkpoint, model_type=model_type)
        with pytest.raises(NotRunnable):
            read_config(checkpoint)


def test_a_weight_that_transformers_would_make_up_is_an_error(
    tiny_checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    from exporter.checkpoint.errors import TensorMissing
    from exporter.reference.model import load_checkpoint, read_config

    path = Path(shutil.copytree(tiny_checkpoint("bf16"), tmp_path / "checkpoint"))
    tensors = load_file(path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    with pytest.raises(TensorMissing, match="up_proj"):
        load_checkpoint(path, read_config(path), torch.float32, "cpu")
