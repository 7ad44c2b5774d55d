"""Ways to damage a checkpoint that transformers wrote, and what must come of it."""

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

Damage = Callable[[Path], object]


def in_config(**changes: Any) -> Damage:
    def damage(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        config |= changes
        (path / "config.json").write_text(json.dumps(config))

    return damage


def in_scheme(**changes: Any) -> Damage:
    def damage(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        config["quantization_config"] |= changes
        (path / "config.json").write_text(json.dumps(config))

    return damage


def in_tensors(change: Callable[[dict[str, Any]], object]) -> Damage:
    def damage(path: Path) -> None:
        tensors = load_file(path / "model.safetensors")
        change(tensors)
        save_file(tensors, path / "model.safetensors")

    return damage


def write_file(name: str, data: bytes) -> Damage:
    return lambda path: (path / name).write_bytes(data)


def remove(name: str) -> Damage:
    return lambda path: (path / name).unlink()


def cut_short(path: Path) -> None:
    file = path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def poison(name: str, value: float = float("nan")) -> Callable[[dict[str, Any]], object]:
    def change(tensors: dict[str, Any]) -> None:
        tensors[name].view(-1)[0] = value

    return change


def set_first(name: str, value: int) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors[name].__setitem__(0, value)


def keep_first(name: str, rows: int) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.update({name: tensors[name][:rows].clone()})


Q = "model.layers.0.self_attn.q_proj"


def in_group(part: str, **changes: Any) -> Damage:
    """Change what a compressed-tensors group says of its weights or activations."""

    def damage(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        for group in config["quantization_config"]["config_groups"].values():
            group[part] = (group[part] or {}) | changes
        (path / "config.json").write_text(json.dumps(config))

    return damage


def in_state(text: bytes | None = None, **changes: Any) -> Damage:
    """Replace the JSON beside an NF4 weight, or keys of it."""

    def change(tensors: dict[str, Any]) -> None:
        key = f"{Q}.weight.quant_state.bitsandbytes__nf4"
        state = json.loads(tensors[key].numpy().tobytes()) | changes
        written = json.dumps(state).encode() if text is None else text
        tensors[key] = torch.frombuffer(bytearray(written), dtype=torch.uint8)

    return in_tensors(change)


def refused(checkpoint: Path, damage: Damage, code: str, folder: Path) -> None:
    """Damage a copy of ``checkpoint`` and export it: refused, and nothing is left."""
    copy, out = folder / "checkpoint", folder / "out" / "bundle"
    shutil.copytree(checkpoint, copy)
    damage(copy)
    with pytest.raises(TabwrightError) as caught:
        export(copy, (TARGETS["webgpu-q4"],), out, runtime=folder)
    assert caught.value.code == code
    assert caught.value.next_step
    assert not out.exists()
    assert not out.parent.exists() or not list(out.parent.iterdir())
