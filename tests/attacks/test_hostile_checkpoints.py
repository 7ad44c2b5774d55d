"""Checkpoints that are broken or hostile: each is refused with its own code, by name.

Every case damages a copy of a good checkpoint, exports it, and looks at what is left.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter.pipeline import export
from manifests.errors import TabwrightError
from targets import TARGETS

Factory = Callable[[str], Path]
Damage = Callable[[Path], object]


def _config(**changes: Any) -> Damage:
    def damage(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        config |= changes
        (path / "config.json").write_text(json.dumps(config))

    return damage


def _scheme(**changes: Any) -> Damage:
    def damage(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        config["quantization_config"] |= changes
        (path / "config.json").write_text(json.dumps(config))

    return damage


def _tensors(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(path: Path) -> None:
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors")

    return damage


def _write(name: str, data: bytes) -> Damage:
    return lambda path: (path / name).write_bytes(data)


def _remove(name: str) -> Damage:
    return lambda path: (path / name).unlink()


def _cut(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _index(target: str) -> Damage:
    def damage(path: Path) -> None:
        index = path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"a": target}}))

    return damage


def _pickle_named_safetensors(path: Path) -> None:
    (path / "model.safetensors").write_bytes(b"\x80\x04\x95" + bytes(64))


def _pickle_only(path: Path) -> None:
    (path / "model.safetensors").unlink()
    (path / "pytorch_model.bin").write_bytes(b"PK\x03\x04" + bytes(64))


_Q = "model.layers.0.self_attn.q_proj"
CASES: dict[str, tuple[str, Damage, str]] = {
    "no config": ("bf16", _remove("config.json"), "not-a-checkpoint"),
    "config is no JSON": ("bf16", _write("config.json", b"{"), "not-a-checkpoint"),
    "config is deep": ("bf16", _write("config.json", b"[" * 200_000), "not-a-checkpoint"),
    "config is a list": ("bf16", _write("config.json", b"[]"), "not-a-checkpoint"),
    "no tokenizer": ("bf16", _remove("tokenizer.json"), "not-a-checkpoint"),
    "no weights": ("bf16", _remove("model.safetensors"), "not-a-checkpoint"),
    "no model_type": ("bf16", _config(model_type=None), "not-a-checkpoint"),
    "no sizes": ("bf16", _config(hidden_size=None), "not-a-checkpoint"),
    "a billion layers": ("bf16", _config(num_hidden_layers=10**9), "not-a-checkpoint"),
    "a size that is a text": ("bf16", _config(vocab_size="many"), "not-a-checkpoint"),
    "heads that do not divide": (
        "bf16",
        _config(num_attention_heads=7, head_dim=None),
        "graph-undeclared",
    ),
    "rotary settings of no kind": (
        "bf16",
        _config(rope_parameters={"rope_type": "spiral"}),
        "graph-undeclared",
    ),
    "scheme is a list": ("bf16", _config(quantization_config=[1]), "not-a-checkpoint"),
    "scheme without a name": ("bf16", _config(quantization_config={}), "unsupported-scheme"),
    "groups are a list": ("w4a16-g32", _scheme(config_groups=[1]), "not-a-checkpoint"),
    "bits are a text": (
        "w4a16-g32",
        _scheme(config_groups={"g": {"weights": {"num_bits": "four", "type": "int"}}}),
        "not-a-checkpoint",
    ),
    "unknown family": ("bf16", _config(model_type="mamba"), "unsupported-architecture"),
    "pickle": ("bf16", _pickle_only, "pickle-refused"),
    "pickle in disguise": ("bf16", _pickle_named_safetensors, "pickle-refused"),
    "cut short": ("bf16", _cut, "shard-corrupt"),
    "index without weights": (
        "bf16",
        _write("model.safetensors.index.json", b"{}"),
        "not-a-checkpoint",
    ),
    "index to a missing shard": ("bf16", _index("gone.safetensors"), "shard-missing"),
    "index out of the folder": ("bf16", _index("../../etc/passwd"), "not-a-checkpoint"),
    "tensor gone": ("bf16", _tensors(lambda t: t.pop(f"{_Q}.weight")), "tensor-missing"),
    "tensor too many": (
        "bf16",
        _tensors(lambda t: t.update({f"{_Q}.lora_A.weight": torch.zeros(4, 4)})),
        "tensor-unknown",
    ),
    "tensor of a wrong shape": (
        "bf16",
        _tensors(lambda t: t.update({f"{_Q}.weight": torch.zeros(4, 4)})),
        "wrong-shape",
    ),
    "config of another size": ("bf16", _config(intermediate_size=160), "wrong-shape"),
    "unknown method": ("w4a16-g32", _scheme(quant_method="quip"), "unsupported-scheme"),
    "unknown format": (
        "w4a16-g32",
        _scheme(
            config_groups={
                "g": {
                    "format": "nvfp4-pack-quantized",
                    "weights": {"num_bits": 4, "type": "float"},
                }
            }
        ),
        "unsupported-scheme",
    ),
    "scale gone": ("w4a16-g32", _tensors(lambda t: t.pop(f"{_Q}.weight_scale")), "tensor-missing"),
    "scale of a wrong shape": (
        "w4a16-g32",
        _tensors(lambda t: t.update({f"{_Q}.weight_scale": torch.ones(4, 4)})),
        "wrong-shape",
    ),
    "negative shape": (
        "w4a16-g32",
        _tensors(lambda t: t.update({f"{_Q}.weight_shape": torch.tensor([-1, 128])})),
        "wrong-shape",
    ),
    "shape of another size": (
        "w4a16-g32",
        _tensors(lambda t: t.update({f"{_Q}.weight_shape": torch.tensor([128, 1 << 40])})),
        "wrong-shape",
    ),
    "activation order": (
        "w4a16-g32",
        _tensors(lambda t: t.update({f"{_Q}.weight_g_idx": torch.zeros(128, dtype=torch.int32)})),
        "unsupported-scheme",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_its_code(case: str, tiny_checkpoint: Factory, tmp_path: Path) -> None:
    variant, damage, code = CASES[case]
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint(variant), checkpoint)
    damage(checkpoint)
    out = tmp_path / "out" / "bundle"
    with pytest.raises(TabwrightError) as caught:
        export(checkpoint, (TARGETS["webgpu-q4"],), out, runtime=tmp_path)
    assert caught.value.code == code
    assert caught.value.next_step
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TabwrightError) as caught:
        export(tmp_path / "nothing", (TARGETS["wasm-q4"],), tmp_path / "out", runtime=tmp_path)
    assert caught.value.code == "not-a-checkpoint"
