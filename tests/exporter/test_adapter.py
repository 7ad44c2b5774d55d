"""LoRA adapters against PEFT's own merge, and what is refused of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from exporter.checkpoint import Dense, open_checkpoint
from exporter.checkpoint.adapter_config import UnsupportedAdapter
from exporter.pipeline import export
from exporter.reference.errors import CheckpointMismatch
from exporter.reference.make import make_reference
from exporter.reference.model import load_bundle
from exporter.reference.quiet import quiet_libraries
from exporter.reference.weights import bundle_weights
from manifests.bundle import read_manifest
from manifests.errors import TabwrightError
from targets import TARGETS
from tests.checkpoints import edit_config
from tests.exporter.test_checkpoint import decompressed
from tests.onnx_folders import write_folder

Factory = Callable[[str], Path]

_Q = "model.layers.1.self_attn.q_proj"
SETTINGS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "patterns": {
        "rank_pattern": {"v_proj": 2, "layers.1.self_attn.q_proj": 8},
        "alpha_pattern": {_Q: 3, "q_proj": 32},
    },
    "one layer": {"layers_to_transform": [1]},
    "saved modules": {"modules_to_save": ["lm_head", "norm"]},
    "an expression": {"target_modules": r".*\.(up|down)_proj"},
}


def write_adapter(base: Path, folder: Path, **settings: Any) -> Path:
    """An adapter of random weights over ``base``, saved by PEFT."""
    with quiet_libraries(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], **settings}
        adapted = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **config))
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
            elif "modules_to_save" in name or "magnitude" in name:
                parameter.data *= 1.25
        adapted.save_pretrained(str(folder))
    return folder


def merged_by_peft(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    with quiet_libraries():
        model: Any = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
    state: dict[str, torch.Tensor] = model.state_dict()
    return state


@pytest.mark.parametrize("case", SETTINGS)
def test_merged_weights_equal_peft_s(case: str, tiny_checkpoint: Factory, tmp_path: Path) -> None:
    base = tiny_checkpoint("bf16-untied")
    adapter = write_adapter(base, tmp_path / "adapter", **SETTINGS[case])
    expected = merged_by_peft(base, adapter)
    plain = open_checkpoint(base).weights
    weights = open_checkpoint(base, adapter).weights
    assert list(weights) == list(plain)
    changed = 0
    for name, weight in weights.items():
        before = plain[name]
        assert isinstance(weight, Dense)
        assert isinstance(before, Dense)
        np.testing.assert_allclose(
            weight.values(), expected[name].numpy(), rtol=1e-6, atol=1e-6, err_msg=name
        )
        changed += not np.array_equal(weight.values(), before.values())
    tensors = load_file(adapter / "adapter_model.safetensors")
    saved = sum("lora_" not in name for name in tensors)
    assert changed == sum(name.endswith("lora_A.weight") for name in tensors) + saved


def test_blocks_of_rows_are_rows_of_the_whole(tiny_checkpoint: Factory, tmp_path: Path) -> None:
    base = tiny_checkpoint("w4a16-g32-asymmetric")
    adapter = write_adapter(tiny_checkpoint("bf16"), tmp_path / "adapter", use_dora=True)
    weight = open_checkpoint(base, adapter).weights[f"{_Q}.weight"]
    assert isinstance(weight, Dense)
    whole = weight.values()
    np.testing.assert_array_equal(
        np.concatenate([weight.rows(at, at + 1) for at in range(len(whole))]), whole
    )


def test_a_packed_base_is_merged_and_the_ledger_says_so(
    tiny_checkpoint: Factory, tmp_path: Path
) -> None:
    base = tiny_checkpoint("w4a16-g32")
    adapter = write_adapter(tiny_checkpoint("bf16"), tmp_path / "adapter")
    bundle = tmp_path / "bundle"
    targets = (TARGETS["webgpu-q4"], TARGETS["webgpu-q8"])
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<!doctype html>")
    export(base, targets, bundle, runtime=tmp_path / "page", adapter=adapter)
    manifest = read_manifest(bundle)
    source = decompressed(base)
    update = load_file(adapter / "adapter_model.safetensors")
    for weights in manifest.weights.values():
        for row, stored in bundle_weights(bundle, weights):
            module = f"base_model.model.{row.name.removesuffix('.weight')}"
            if f"{module}.lora_A.weight" not in update:
                assert (row.outcome == "exact") == (row.role in ("linear", "float")), row.name
                continue
            assert row.source == "compressed-tensors int4 g32 symmetric + LoRA r=4"
            assert row.outcome == "requantised"
            a, b = update[f"{module}.lora_A.weight"], update[f"{module}.lora_B.weight"]
            expected = source[row.name] + 2 * (b @ a)
            error = (torch.from_numpy(stored) - expected).norm() / expected.norm()
            assert row.rounding is not None
            # compressed-tensors dequantises in bfloat16, which adds up to 2**-9 of its own.
            assert error.item() == pytest.approx(row.rounding.rms, abs=2**-8)


def test_the_source_digest_covers_the_adapter(tiny_checkpoint: Factory, tmp_path: Path) -> None:
    base = tiny_checkpoint("bf16")
    adapter = write_adapter(base, tmp_path / "adapter")
    source = open_checkpoint(base, adapter).source()
    names = {file.path for file in source.files}
    assert {"adapter_config.json", "adapter_model.safetensors", "config.json"} <= names
    tensors = load_file(adapter / "adapter_model.safetensors")
    tensors[next(iter(tensors))][0, 0] += 1
    save_file(tensors, adapter / "adapter_model.safetensors")
    changed = open_checkpoint(base, adapter).source()
    assert len({source.digest, changed.digest, open_checkpoint(base).source().digest}) == 3


def test_the_reference_merges_it_too(tiny_checkpoint: Factory, tmp_path: Path) -> None:
    base = tiny_checkpoint("bf16")
    adapter = write_adapter(base, tmp_path / "adapter")
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<!doctype html>")
    bundle = tmp_path / "bundle"
    export(base, (TARGETS["webgpu-q8"],), bundle, runtime=tmp_path / "page", adapter=adapter)
    out = tmp_path / "reference.json"
    brief: dict[str, Any] = {"device": "cpu", "repetitions": 1, "decode_tokens": 1}
    with pytest.raises(CheckpointMismatch):
        make_reference(base, bundle, out, **brief)
    reference = make_reference(base, bundle, out, adapter=adapter, **brief)
    assert reference.checkpoint_read_by == "tabwright"
    # 8 bits are near the merged floats; without the adapter the answers would be others.
    assert reference.answers["q8"].export_loss.kl_mean < 1e-2
    plain = load_bundle(base, bundle, read_manifest(bundle).weights["q8"], "cpu")
    merged = merged_by_peft(base, adapter)
    for name, weight in plain.state_dict().items():
        assert (weight - merged[name]).norm() <= 2e-2 * merged[name].norm()


def test_a_tied_head_that_the_file_holds_besides_cannot_change_alone(
    tiny_checkpoint: Factory, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_checkpoint("bf16-untied"), base)
    edit_config(base, tie_word_embeddings=True)
    adapter = write_adapter(
        tiny_checkpoint("bf16-untied"), tmp_path / "adapter", modules_to_save=["lm_head"]
    )
    with pytest.raises(TabwrightError) as caught:
        export(base, (TARGETS["webgpu-q8"],), tmp_path / "out", runtime=tmp_path, adapter=adapter)
    assert caught.value.code == "unsupported-adapter"


@pytest.fixture(scope="module")
def good_adapter(tiny_checkpoint: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tiny_checkpoint("bf16"), tmp_path_factory.mktemp("adapter") / "good")


def test_an_adapter_alone_is_told_what_it_lacks(good_adapter: Path) -> None:
    with pytest.raises(TabwrightError) as caught:
        open_checkpoint(good_adapter)
    assert caught.value.code == "adapter-unmerged"
    assert "export BASE --lora" in caught.value.next_step


def test_an_adapter_beside_its_base_is_not_overlooked(
    tiny_checkpoint: Factory, good_adapter: Path, tmp_path: Path
) -> None:
    both = tmp_path / "both"
    shutil.copytree(tiny_checkpoint("bf16"), both)
    shutil.copytree(good_adapter, both, dirs_exist_ok=True)
    with pytest.raises(TabwrightError) as caught:
        open_checkpoint(both)
    assert caught.value.code == "adapter-unmerged"
    assert open_checkpoint(both, both).format == "safetensors + LoRA"


def test_nothing_is_merged_into_an_onnx_graph(
    tiny_checkpoint: Factory, good_adapter: Path, tmp_path: Path
) -> None:
    """Its initializers have the names that another exporter gave them."""
    folder = write_folder(tiny_checkpoint("bf16"), tmp_path / "gpt2")
    assert open_checkpoint(folder).format == "onnx"
    with pytest.raises(UnsupportedAdapter, match="merging into an ONNX graph") as caught:
        open_checkpoint(folder, good_adapter)
    assert caught.value.exit_status == 3
    assert "merge_and_unload" in caught.value.next_step
