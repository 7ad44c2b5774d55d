"""A bundle as written: shards, staging, verifying, and that equal input gives equal bytes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from exporter.pipeline import export
from exporter.write.errors import NotReplaceable, OutputExists, TensorTooLarge
from exporter.write.shards import ALIGNMENT, CHUNK_SIZE, ShardWriter
from exporter.write.staging import staged
from exporter.write.verify import verify_bundle
from manifests.bundle import MANIFEST_NAME, Manifest, read_manifest
from manifests.errors import BadDocument, TabwrightError
from targets import TARGETS

Factory = Callable[[str], Path]


@pytest.fixture(scope="module")
def bundle(tiny_checkpoint: Factory, page: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "bundle"
    export(tiny_checkpoint("w4a16-g32"), tuple(TARGETS.values()), out, runtime=page)
    return out


def test_shards_are_aligned_and_described(tmp_path: Path) -> None:
    values = np.arange(1000, dtype=np.float32)
    with ShardWriter(tmp_path, "model_q4", 9000) as writer:
        places = []
        for index in range(5):
            places.append(writer.begin(f"t{index}", values.nbytes))
            writer.write(values[:500])
            writer.write(values[500:])
    assert [p.file for p in places] == ["onnx/model_q4.onnx_data"] * 2 + [
        "onnx/model_q4.onnx_data_1"
    ] * 2 + ["onnx/model_q4.onnx_data_2"]
    for place in places:
        assert place.offset % ALIGNMENT == 0
        stored = (tmp_path / place.file).read_bytes()[place.offset : place.offset + place.length]
        np.testing.assert_array_equal(np.frombuffer(stored, np.float32), values)
    for file in writer.files:
        data = (tmp_path / file.path).read_bytes()
        assert file.size == len(data)
        assert file.sha256 == hashlib.sha256(data).hexdigest()
        assert file.chunks == (hashlib.sha256(data).hexdigest(),)


def test_chunk_digests_are_those_of_the_chunks(tmp_path: Path) -> None:
    values = np.random.default_rng(1).integers(0, 256, CHUNK_SIZE * 2 + 123, np.uint8)
    with ShardWriter(tmp_path, "m", 1 << 30) as writer:
        writer.begin("a", values.nbytes)
        writer.write(values)
    data = values.tobytes()
    expected = [
        hashlib.sha256(data[at : at + CHUNK_SIZE]).hexdigest()
        for at in range(0, len(data), CHUNK_SIZE)
    ]
    assert list(writer.files[0].chunks) == expected


def test_a_tensor_larger_than_a_shard_is_refused(tmp_path: Path) -> None:
    with ShardWriter(tmp_path, "m", 100) as writer, pytest.raises(TensorTooLarge, match="wide"):
        writer.begin("wide", 101)


def test_targets_of_one_weight_set_share_shards(bundle: Path) -> None:
    manifest = read_manifest(bundle)
    stored = {file.path for file in manifest.files if ".onnx_data" in file.path}
    assert stored == {"onnx/model_q4.onnx_data", "onnx/model_quantized.onnx_data"}
    assert {entry.weights for entry in manifest.targets.values()} == {"q4", "q8"}
    verify_bundle(bundle)


def _changes(bundle: Path) -> list[str]:
    return sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file())


def test_one_flipped_bit_in_any_file_is_found(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    for name in _changes(bundle):
        original = (copy / name).read_bytes()
        for at in {0, len(original) // 2, len(original) - 1}:
            damaged = bytearray(original)
            damaged[at] ^= 1
            (copy / name).write_bytes(damaged)
            with pytest.raises(TabwrightError, match=Path(name).name):
                verify_bundle(copy)
        (copy / name).write_bytes(original)
    verify_bundle(copy)


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda b: (b / "tokenizer.json").unlink(), "file-missing"),
        (lambda b: (b / "extra.bin").write_bytes(b"x"), "file-unlisted"),
        (lambda b: (b / "link").symlink_to("/etc/passwd"), "file-unlisted"),
        (lambda b: (b / MANIFEST_NAME).unlink(), "not-found"),
        (lambda b: (b / MANIFEST_NAME).write_text("{}"), "bad-document"),
        (lambda b: (b / "onnx/model_q4.onnx").write_bytes(b""), "file-changed"),
    ],
)
def test_verify_names_what_is_wrong(
    bundle: Path, tmp_path: Path, damage: Callable[[Path], object], code: str
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    damage(copy)
    with pytest.raises(TabwrightError) as caught:
        verify_bundle(copy)
    assert caught.value.code == code


def test_an_existing_output_needs_force(
    bundle: Path, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    with pytest.raises(OutputExists):
        export(tiny_checkpoint("bf16"), (TARGETS["webgpu-q4"],), copy, runtime=page)
    verify_bundle(copy)
    export(tiny_checkpoint("bf16"), (TARGETS["webgpu-q4"],), copy, runtime=page, force=True)
    assert set(verify_bundle(copy).targets) == {"webgpu-q4"}
    assert [p.name for p in tmp_path.iterdir()] == ["copy"]


def test_force_never_deletes_what_is_no_bundle(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("years")
    with pytest.raises(NotReplaceable), staged(precious, force=True):
        pass
    assert (precious / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize(("force", "error"), [(False, OutputExists), (True, NotReplaceable)])
def test_what_came_to_be_there_meanwhile_stays(
    tmp_path: Path, force: bool, error: type[TabwrightError]
) -> None:
    out = tmp_path / "bundle"

    def finish_late() -> None:
        with staged(out, force=force) as stage:
            (stage / MANIFEST_NAME).write_text("new")
            out.mkdir()
            (out / "thesis.txt").write_text("years")

    with pytest.raises(error):
        finish_late()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert (out / "thesis.txt").read_text() == "years"


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError])
def test_an_interrupted_export_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    out = tmp_path / "bundle"

    def interrupted() -> None:
        with staged(out, force=False) as stage:
            (stage / "half").write_bytes(b"half")
            raise error

    with pytest.raises(error):
        interrupted()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("renames", [0, 1])
def test_an_interrupted_replacement_keeps_the_old_bundle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renames: int
) -> None:
    out = tmp_path / "bundle"
    with staged(out, force=False) as stage:
        (stage / MANIFEST_NAME).write_text("old")
    rename, left = Path.rename, [renames]

    def interrupted(self: Path, target: Path) -> Path:
        if left[0] == 0:
            left[0] = -1
            raise KeyboardInterrupt
        left[0] -= 1
        return rename(self, target)

    def replace() -> None:
        with staged(out, force=True) as stage:
            (stage / MANIFEST_NAME).write_text("new")
            monkeypatch.setattr(Path, "rename", interrupted)

    with pytest.raises(KeyboardInterrupt):
        replace()
    assert (out / MANIFEST_NAME).read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def _unlisted(manifest: dict[str, Any]) -> None:
    manifest["files"] = [f for f in manifest["files"] if f["path"] != "onnx/model_q4.onnx"]


def _outside(manifest: dict[str, Any]) -> None:
    manifest["weights"]["q4"]["tensors"][0]["values"]["offset"] = 1 << 40


@pytest.mark.parametrize(
    "damage",
    [
        _unlisted,
        _outside,
        lambda m: m["files"].append(m["files"][0]),
        lambda m: m["files"][0]["chunks"].append("0" * 64),
        lambda m: m["targets"]["wasm-q4"].update(weights="q2"),
        lambda m: m["files"][0].update(path="../index.html"),
        lambda m: m.update(chunk_size=0),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(
    bundle: Path, damage: Callable[[dict[str, Any]], object]
) -> None:
    document = json.loads((bundle / MANIFEST_NAME).read_text())
    Manifest.parse(json.dumps(document), bundle)
    damage(document)
    with pytest.raises(BadDocument):
        Manifest.parse(json.dumps(document), bundle)


def test_equal_bytes_whatever_the_hash_seed(
    bundle: Path, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    script = (
        "import sys; from pathlib import Path; from exporter.pipeline import export;"
        "from targets import TARGETS; a = [Path(p) for p in sys.argv[1:]];"
        "export(a[0], tuple(TARGETS.values()), a[1], runtime=a[2])"
    )
    again = tmp_path / "again"
    command = [sys.executable, "-c", script, str(tiny_checkpoint("w4a16-g32")), str(again)]
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)}
    subprocess.run([*command, str(page)], check=True, env=environment)
    assert read_manifest(again).seal == read_manifest(bundle).seal
