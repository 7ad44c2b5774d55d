"""Adapters that are broken or hostile: each is refused with its own code, by name."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter.checkpoint import open_checkpoint
from exporter.pipeline import export
from manifests.errors import TabwrightError
from targets import TARGETS
from tests.exporter.test_adapter import write_adapter

Factory = Callable[[str], Path]
_Q = "model.layers.1.self_attn.q_proj"


def _config(**changes: Any) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return damage


def _tensors(change: Callable[[dict[str, Any]], object]) -> Callable[[Path], object]:
    def damage(folder: Path) -> None:
        tensors = load_file(folder / "adapter_model.safetensors")
        change(tensors)
        save_file(tensors, folder / "adapter_model.safetensors")

    return damage


def _pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").unlink()
    (folder / "adapter_model.bin").write_bytes(b"PK\x03\x04" + bytes(64))


_A = f"base_model.model.{_Q}.lora_A.weight"
_B = f"base_model.model.{_Q}.lora_B.weight"
REFUSED: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "no config": (lambda p: (p / "adapter_config.json").unlink(), "not-an-adapter", "is missing"),
    "config is deep": (
        lambda p: (p / "adapter_config.json").write_text("[" * 200_000),
        "not-an-adapter",
        "not JSON",
    ),
    "no tensors": (
        lambda p: (p / "adapter_model.safetensors").unlink(),
        "not-an-adapter",
        "adapter_model.safetensors is missing",
    ),
    "a pickle": (_pickle, "pickle-refused", "adapter_model.bin"),
    "a pickle by another name": (
        lambda p: (p / "adapter_model.safetensors").write_bytes(b"\x80\x04\x95" + bytes(64)),
        "pickle-refused",
        "adapter_model.safetensors",
    ),
    "rank of a billion": (_config(r=10**9), "not-an-adapter", "r: "),
    "rank zero": (_config(r=0), "not-an-adapter", "r: "),
    "alpha is not a number": (_config(lora_alpha=float("nan")), "not-an-adapter", "NaN"),
    "alpha beyond all": (_config(lora_alpha=1e300), "not-an-adapter", "lora_alpha"),
    "a hundred thousand patterns": (
        _config(rank_pattern={f"m{i}": 4 for i in range(100_000)}),
        "not-an-adapter",
        "rank_pattern",
    ),
    "a flag that is text": (_config(use_rslora="false"), "not-an-adapter", "use_rslora"),
    "no kind": (_config(peft_type=None), "not-an-adapter", "peft_type"),
    "another kind": (_config(peft_type="IA3"), "unsupported-adapter", "'IA3'"),
    "a pattern that backtracks": (
        _config(alpha_pattern={"(a+)+$": 4}),
        "unsupported-adapter",
        "regular expression",
    ),
    "biases": (_config(bias="all"), "unsupported-adapter", "bias 'all'"),
    "transposed": (_config(fan_in_fan_out=True), "unsupported-adapter", "fan_in_fan_out"),
    "a start from the base": (
        _config(init_lora_weights="pissa"),
        "unsupported-adapter",
        "init_lora_weights 'pissa'",
    ),
    "a classifier": (_config(task_type="SEQ_CLS"), "unsupported-adapter", "task_type 'SEQ_CLS'"),
    "a setting of tomorrow": (
        _config(use_hyperlora={"depth": 3}),
        "unsupported-adapter",
        "'use_hyperlora'",
    ),
    "tokens": (
        _config(trainable_token_indices=[1, 2]),
        "unsupported-adapter",
        "'trainable_token_indices'",
    ),
    "repeated layers": (
        _config(layer_replication=[[0, 2], [1, 2]]),
        "unsupported-adapter",
        "'layer_replication'",
    ),
    "an embedding": (
        _tensors(
            lambda t: t.update({"base_model.model.model.e.lora_embedding_A": torch.zeros(4, 8)})
        ),
        "unsupported-adapter",
        "LoRA of an embedding",
    ),
    "a head that is tied": (
        _tensors(
            lambda t: t.update(
                {
                    "base_model.model.lm_head.lora_A.weight": torch.zeros(4, 128),
                    "base_model.model.lm_head.lora_B.weight": torch.zeros(512, 4),
                }
            )
        ),
        "unsupported-adapter",
        "tied head",
    ),
    "a saved embedding that is tied": (
        lambda p: (
            _config(modules_to_save=["embed_tokens"])(p),
            _tensors(
                lambda t: t.update(
                    {"base_model.model.model.embed_tokens.weight": torch.zeros(512, 128)}
                )
            )(p),
        ),
        "unsupported-adapter",
        "tied head",
    ),
    "DoRA without lengths": (_config(use_dora=True), "tensor-missing", "lora_magnitude_vector"),
    "lengths without DoRA": (
        _tensors(
            lambda t: t.update({f"base_model.model.{_Q}.lora_magnitude_vector": torch.zeros(128)})
        ),
        "adapter-misfit",
        "does not account for it",
    ),
    "A without B": (_tensors(lambda t: t.pop(_B)), "tensor-missing", _B),
    "a module left out": (
        _tensors(lambda t: (t.pop(_A), t.pop(_B))),
        "tensor-missing",
        _A,
    ),
    "another rank": (_config(r=8), "adapter-misfit", "shape [4, 128]"),
    "A of another width": (
        _tensors(lambda t: t.update({_A: torch.zeros(4, 64)})),
        "adapter-misfit",
        _A,
    ),
    "B of another height": (
        _tensors(lambda t: t.update({_B: torch.zeros(1, 4)})),
        "adapter-misfit",
        _B,
    ),
    "integers": (
        _tensors(lambda t: t.update({_A: torch.zeros(4, 128, dtype=torch.int32)})),
        "adapter-misfit",
        "int32",
    ),
    "an unknown module": (
        _tensors(
            lambda t: t.update(
                {
                    "base_model.model.model.layers.9.x_proj.lora_A.weight": torch.zeros(4, 128),
                    "base_model.model.model.layers.9.x_proj.lora_B.weight": torch.zeros(128, 4),
                }
            )
        ),
        "adapter-misfit",
        "no linear model.layers.9.x_proj",
    ),
    "a norm": (
        _tensors(
            lambda t: t.update(
                {
                    "base_model.model.model.norm.lora_A.weight": torch.zeros(4, 128),
                    "base_model.model.model.norm.lora_B.weight": torch.zeros(128, 4),
                }
            )
        ),
        "adapter-misfit",
        "no linear model.norm",
    ),
    "a tensor beside the adapters": (
        _tensors(lambda t: t.update({f"base_model.model.{_Q}.weight": torch.zeros(128, 128)})),
        "adapter-misfit",
        "does not account for it",
    ),
    "names of another library": (
        _tensors(lambda t: t.update({"lora_unet_x.lora_up.weight": torch.zeros(4, 4)})),
        "adapter-misfit",
        "does not start with",
    ),
    "an index of layers that is huge": (
        _config(layers_to_transform=[10**30], target_modules=["q_proj"] * 2000),
        "not-an-adapter",
        "target_modules",
    ),
}


@pytest.fixture(scope="module")
def good_adapter(tiny_checkpoint: Factory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tiny_checkpoint("bf16"), tmp_path_factory.mktemp("adapter") / "good")


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_its_code(
    case: str, tiny_checkpoint: Factory, good_adapter: Path, tmp_path: Path
) -> None:
    damage, code, reason = REFUSED[case]
    adapter = tmp_path / "adapter"
    shutil.copytree(good_adapter, adapter)
    damage(adapter)
    with pytest.raises(TabwrightError) as caught:
        open_checkpoint(tiny_checkpoint("bf16"), adapter)
    assert caught.value.code == code
    assert reason in str(caught.value)
    assert caught.value.next_step


def test_not_finite_updates_are_refused(
    tiny_checkpoint: Factory, good_adapter: Path, tmp_path: Path
) -> None:
    adapter = tmp_path / "adapter"
    shutil.copytree(good_adapter, adapter)
    _tensors(lambda t: t.update({_A: torch.full((4, 128), 3e38)}))(adapter)
    _tensors(lambda t: t.update({_B: torch.full((128, 4), 3e38)}))(adapter)
    with pytest.raises(TabwrightError) as caught:
        export(
            tiny_checkpoint("bf16"), (TARGETS["wasm-q4"],), tmp_path / "out",
            runtime=tmp_path, adapter=adapter,
        )  # fmt: skip
    assert caught.value.code == "tensor-not-finite"
