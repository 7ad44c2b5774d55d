"""``verify --against``: true ledgers are proven, and every kind of lie is found."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

import tabwright
from exporter.pipeline import export
from exporter.prove import Proof, prove
from exporter.prove.errors import LedgerUntrue
from exporter.prove.gguf import GgufTensors
from exporter.prove.values import floats
from manifests.bundle import Tensor, read_manifest
from manifests.errors import TabwrightError
from targets import TARGETS
from tests.checkpoints import VARIANTS
from tests.exporter.test_adapter import write_adapter
from tests.families import FAMILY_CASES, write_family
from tests.gguf_files import write_gguf
from tests.lies import assert_found, is_exact_linear, is_requantised, reseal, row_of
from tests.made_once import exported_once
from tests.onnx_folders import write_folder

Factory = Callable[[str], Path]
SETS = (TARGETS["wasm-q4"], TARGETS["webgpu-q8"])


@pytest.fixture(scope="module")
def bundle_of(
    tiny_checkpoint: Factory, page: Path, tmp_path_factory: pytest.TempPathFactory
) -> Factory:
    return exported_once(tiny_checkpoint, SETS, page, tmp_path_factory)


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


def _flip(part: str, choose: Callable[[Tensor], bool]) -> Callable[[Path], Tensor]:
    """Flip one bit of a row's codes, scales, zero points or values."""

    def damage(bundle: Path) -> Tensor:
        row = row_of(bundle, choose)
        place = getattr(row, part)
        path = bundle / place.file
        data = bytearray(path.read_bytes())
        data[place.offset + place.length // 2] ^= 1
        path.write_bytes(data)
        reseal(bundle, lambda _: None)
        return row

    return damage


def _tell(choose: Callable[[Tensor], bool], **changes: Any) -> Callable[[Path], Tensor]:
    """Change what a row says."""

    def damage(bundle: Path) -> Tensor:
        row = row_of(bundle, choose)

        def change(document: dict[str, Any]) -> None:
            for entry in document["weights"]["q4"]["tensors"]:
                if entry["name"] == row.name:
                    for key, value in changes.items():
                        entry[key] = value(entry) if callable(value) else value

        reseal(bundle, change)
        return row

    return damage


def _swap_scales(bundle: Path) -> Tensor:
    """Give a row the scales of another of its shape."""
    rows = [row for row in read_manifest(bundle).weights["q4"].tensors if is_exact_linear(row)]
    first = rows[0]
    other = next(r for r in rows[1:] if r.shape == first.shape)
    assert other.scales is not None
    return _tell(lambda row: row.name == first.name, scales=other.scales.model_dump())(bundle)


def _leave_out(choose: Callable[[Tensor], bool]) -> Callable[[Path], Tensor]:
    def damage(bundle: Path) -> Tensor:
        row = row_of(bundle, choose)

        def change(document: dict[str, Any]) -> None:
            tensors = document["weights"]["q4"]["tensors"]
            tensors[:] = [entry for entry in tensors if entry["name"] != row.name]

        reseal(bundle, change)
        return row

    return damage


def _scaled(factor: float) -> Callable[[dict[str, Any]], Any]:
    return lambda entry: entry["rounding"] | {"rms": entry["rounding"]["rms"] * factor}


_ASYMMETRIC = "w4a16-g32-asymmetric"
LIES: dict[str, tuple[str, Callable[[Path], Tensor], str]] = {
    "a code": ("w4a16-g32", _flip("codes", is_exact_linear), "1 codes differ"),
    "a scale": ("w4a16-g32", _flip("scales", is_exact_linear), "32 scales differ"),
    "a zero point": (_ASYMMETRIC, _flip("zero_points", is_exact_linear), "32 codes differ"),
    "a norm": ("bf16", _flip("values", lambda row: row.role == "float"), "1 values differ"),
    "a code of a rounded row": ("bf16", _flip("codes", is_requantised), "rms error is"),
    "another's scales": ("w4a16-g32", _swap_scales, "scales differ"),
    "an error told too small": (
        "bf16",
        _tell(is_requantised, rounding=_scaled(0.99999)),
        "rms error is",
    ),
    "a largest error": (
        "bf16",
        _tell(is_requantised, rounding=lambda e: e["rounding"] | {"max": 0.0}),
        "largest error is",
    ),
    "rounded, called exact": (
        "bf16",
        _tell(is_requantised, outcome="exact", rounding=None),
        "called exact, but",
    ),
    "exact with an error": (
        "w4a16-g32",
        _tell(is_exact_linear, rounding={"rms": 0.1, "max": 0.1}),
        "either exact or",
    ),
    "a share of zeros": (
        "bf16",
        _tell(is_requantised, zeros={"source": 0.5, "stored": 0.5}),
        "share of zeros",
    ),
    "a pattern": (
        "bf16",
        _tell(is_requantised, zeros=lambda e: e["zeros"] | {"pattern": "2:4"}),
        "pattern is not 2:4",
    ),
    "a row left out": ("w4a16-g32", _leave_out(is_exact_linear), "the ledger is not whole"),
    "a shape": ("bf16", _tell(is_requantised, shape=[1, 1]), "the ledger is not whole"),
    "blocks that do not fill a row": (
        "bf16",
        _tell(is_requantised, block_size=7),
        "blocks of 7",
    ),
    "codes without a range": ("bf16", _tell(is_requantised, codes=None), "a range is missing"),
    "a range too short": (
        "bf16",
        _tell(is_requantised, codes=lambda e: e["codes"] | {"length": 3}),
        "3 bytes where",
    ),
    "a width": ("bf16", _tell(is_requantised, bits=5), "4 or 8 bits"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found_and_the_tensor_named(
    lie: str, tiny_checkpoint: Factory, bundle_of: Factory, tmp_path: Path
) -> None:
    variant, damage, reason = LIES[lie]
    checkpoint, bundle = tiny_checkpoint(variant), bundle_of(variant)
    assert_found(damage, reason, checkpoint, bundle, tmp_path / "bundle")


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


def test_keys_of_a_gguf_that_counts_no_groups_have_every_head(tmp_path: Path) -> None:
    source = write_family(FAMILY_CASES["llama-mha"], tmp_path / "source")

    def change(writer: Any) -> None:
        del writer.kv_data[0]["llama.attention.head_count_kv"]

    path = write_gguf(source, tmp_path / "model.gguf", "F32", change)
    expected = load_file(source / "model.safetensors")
    for name in (f"model.layers.0.self_attn.{part}_proj.weight" for part in "qk"):
        matrix = GgufTensors([path]).matrix(name)
        assert matrix is not None
        values = floats(matrix.read(0, matrix.shape[0]))
        np.testing.assert_array_equal(values, expected[name].float().numpy())


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
