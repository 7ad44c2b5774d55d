"""A bundle as written: shards, staging, verifying, and that equal input gives equal bytes."""

from __future__ import annotations

import filecmp
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from exporter.pipeline import export
from exporter.write.errors import NotReplaceable, OutputExists, TensorTooLarge
from exporter.write.shards import ALIGNMENT, CHUNK_SIZE, ShardWriter
from exporter.write.staging import staged
from exporter.write.verify import verify_bundle
from manifests.bundle import MANIFEST_NAME, read_manifest
from manifests.errors import TabwrightError
from targets import TARGETS

Factory = Callable[[str], Path]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "index.html").write_text("<!doctype html>")
    (folder / "runtime").mkdir()
    (folder / "runtime" / "tabwright.js").write_text("export {}")
    return folder


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


def test_equal_input_gives_equal_bytes(
    bundle: Path, tiny_checkpoint: Factory, page: Path, tmp_path: Path
) -> None:
    again = tmp_path / "again"
    export(tiny_checkpoint("w4a16-g32"), tuple(TARGETS.values()), again, runtime=page)
    names = sorted(p.relative_to(bundle).as_posix() for p in bundle.rglob("*") if p.is_file())
    assert names == sorted(p.relative_to(again).as_posix() for p in again.rglob("*") if p.is_file())
    assert filecmp.cmpfiles(bundle, again, names, shallow=False) == (names, [], [])


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
