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


def _poison(name: str, value: float = float("nan")) -> Callable[[dict[str, Any]], object]:
    def change(tensors: dict[str, Any]) -> None:
        tensors[name].view(-1)[0] = value

    return change


def _set(name: str, value: int) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors[name].__setitem__(0, value)


def _first(name: str, rows: int) -> Callable[[dict[str, Any]], object]:
    return lambda tensors: tensors.update({name: tensors[name][:rows].clone()})


_GPTQ = "gptq-act-order"
_Q = "model.layers.0.self_attn.q_proj"


def _group(part: str, **changes: Any) -> Damage:
    """Change what a compressed-tensors group says of its weights or activations."""

    def damage(path: Path) -> None:
        config = json.loads((path / "config.json").read_text())
        for group in config["quantization_config"]["config_groups"].values():
            group[part] = (group[part] or {}) | changes
        (path / "config.json").write_text(json.dumps(config))

    return damage


def _nf4_state(text: bytes | None = None, **changes: Any) -> Damage:
    """Replace the JSON beside an NF4 weight, or keys of it."""

    def change(tensors: dict[str, Any]) -> None:
        key = f"{_Q}.weight.quant_state.bitsandbytes__nf4"
        state = json.loads(tensors[key].numpy().tobytes()) | changes
        written = json.dumps(state).encode() if text is None else text
        tensors[key] = torch.frombuffer(bytearray(written), dtype=torch.uint8)

    return _tensors(change)


_EMBEDDING = "model.embed_tokens.weight"
CASES: dict[str, tuple[str, Damage, str]] = {
    "no config": ("bf16", _remove("config.json"), "not-a-checkpoint"),
    "config is no JSON": ("bf16", _write("config.json", b"{"), "not-a-checkpoint"),
    "config is deep": ("bf16", _write("config.json", b"[" * 200_000), "not-a-checkpoint"),
    "config is a list": ("bf16", _write("config.json", b"[]"), "not-a-checkpoint"),
    "no tokenizer": ("bf16", _remove("tokenizer.json"), "not-a-checkpoint"),
    "tokenizer is no JSON": ("bf16", _write("tokenizer.json", b"{"), "not-a-checkpoint"),
    "tokenizer of nothing": ("bf16", _write("tokenizer.json", b"{}"), "tokenizer-unreadable"),
    "an adapter beside the weights": (
        "bf16",
        _write("adapter_config.json", b"{}"),
        "adapter-unmerged",
    ),
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
    "mixture of experts": (
        "bf16",
        _config(model_type="mixtral", num_local_experts=8),
        "unsupported-architecture",
    ),
    "multimodal": (
        "bf16",
        _config(model_type="gemma3", text_config={}, vision_config={"depth": 2}, vocab_size=None),
        "unsupported-architecture",
    ),
    "encoder-decoder": (
        "bf16",
        _config(model_type="t5", is_encoder_decoder=True, hidden_size=None),
        "unsupported-architecture",
    ),
    "key heads by layer": ("bf16", _config(num_key_value_heads=[1, 2]), "not-a-checkpoint"),
    "heads that no kernel takes": ("bf16", _config(head_dim=40), "graph-undeclared"),
    "rotation wider than memory": ("bf16", _config(head_dim=1 << 20), "graph-undeclared"),
    "rotation that ends before it starts": (
        "bf16",
        _config(
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 10000.0,
                "original_max_position_embeddings": -1,
                "short_factor": [1.0] * 16,
                "long_factor": [1.0] * 16,
            }
        ),
        "graph-undeclared",
    ),
    "rotation without angles": (
        "bf16",
        _config(rope_parameters={"rope_type": "default", "rope_theta": float("nan")}),
        "graph-undeclared",
    ),
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
    "a value that is no number": ("bf16", _tensors(_poison(f"{_Q}.weight")), "tensor-not-finite"),
    "a norm that is infinite": (
        "bf16",
        _tensors(_poison("model.norm.weight", float("inf"))),
        "tensor-not-finite",
    ),
    "a scale that is no number": (
        "w4a16-g32",
        _tensors(_poison(f"{_Q}.weight_scale")),
        "tensor-not-finite",
    ),
    "an embedding of integers": (
        "bf16",
        _tensors(lambda t: t.update({_EMBEDDING: torch.zeros(512, 128, dtype=torch.int8)})),
        "wrong-shape",
    ),
    "a norm in float64": (
        "bf16",
        _tensors(lambda t: t.update({"model.norm.weight": torch.ones(128, dtype=torch.float64)})),
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
    "shape of no rank": (
        "w4a16-g32",
        _tensors(lambda t: t.update({f"{_Q}.weight_shape": torch.tensor(128)})),
        "wrong-shape",
    ),
    "shape of floats": (
        "w4a16-g32",
        _tensors(lambda t: t.update({f"{_Q}.weight_shape": torch.tensor([float("nan"), 128.0])})),
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
    "gptq: bits are a text": (_GPTQ, _scheme(bits="four"), "not-a-checkpoint"),
    "gptq: layout is a list": (_GPTQ, _scheme(checkpoint_format=["gptq"]), "not-a-checkpoint"),
    "gptq: three bits": (_GPTQ, _scheme(bits=3), "unsupported-scheme"),
    "gptq: marlin": (_GPTQ, _scheme(checkpoint_format="marlin"), "unsupported-scheme"),
    "gptq: no groups": (_GPTQ, _tensors(lambda t: t.pop(f"{_Q}.g_idx")), "tensor-missing"),
    "gptq: no scales": (_GPTQ, _tensors(lambda t: t.pop(f"{_Q}.scales")), "tensor-missing"),
    "gptq: no zero points": (_GPTQ, _tensors(lambda t: t.pop(f"{_Q}.qzeros")), "tensor-missing"),
    "gptq: no codes": (_GPTQ, _tensors(lambda t: t.pop(f"{_Q}.qweight")), "wrong-shape"),
    "gptq: codes and floats": (
        _GPTQ,
        _tensors(lambda t: t.update({f"{_Q}.weight": torch.zeros(128, 128)})),
        "wrong-shape",
    ),
    "gptq: a group below none": (_GPTQ, _tensors(_set(f"{_Q}.g_idx", -1)), "wrong-shape"),
    "gptq: a group beyond all": (_GPTQ, _tensors(_set(f"{_Q}.g_idx", 1 << 30)), "wrong-shape"),
    "gptq: groups of unequal size": (
        _GPTQ,
        _tensors(lambda t: t[f"{_Q}.g_idx"].fill_(0)),
        "unsupported-scheme",
    ),
    "gptq: fewer inputs than codes": (_GPTQ, _tensors(_first(f"{_Q}.g_idx", 40)), "wrong-shape"),
    "gptq: fewer zero points than groups": (
        _GPTQ,
        _tensors(_first(f"{_Q}.qzeros", 3)),
        "wrong-shape",
    ),
    "gptq: scales of fewer outputs": (
        _GPTQ,
        _tensors(lambda t: t.update({f"{_Q}.scales": torch.ones(4, 64)})),
        "wrong-shape",
    ),
    "gptq: codes in bytes": (
        _GPTQ,
        _tensors(lambda t: t.update({f"{_Q}.qweight": t[f"{_Q}.qweight"].view(torch.uint8)})),
        "wrong-shape",
    ),
    "gptq: a scale that is no number": (
        _GPTQ,
        _tensors(_poison(f"{_Q}.scales")),
        "tensor-not-finite",
    ),
    "gptq: scales without end, to be rounded again": (
        "gptq-w8-act-order",
        _tensors(lambda t: t[f"{_Q}.scales"].fill_(float("inf"))),
        "tensor-not-finite",
    ),
    "awq: bits are a text": ("awq", _scheme(bits="four"), "not-a-checkpoint"),
    "awq: gemv": ("awq", _scheme(version="gemv"), "unsupported-scheme"),
    "awq: no scales": ("awq", _tensors(lambda t: t.pop(f"{_Q}.scales")), "tensor-missing"),
    "awq: no zero points": ("awq", _tensors(lambda t: t.pop(f"{_Q}.qzeros")), "tensor-missing"),
    "awq: groups that do not divide": (
        "awq",
        _tensors(lambda t: t.update({f"{_Q}.scales": torch.ones(3, 128)})),
        "wrong-shape",
    ),
    "awq: fewer zero points than groups": (
        "awq",
        _tensors(_first(f"{_Q}.qzeros", 1)),
        "wrong-shape",
    ),
    "awq: another size than the config's": (
        "awq",
        _tensors(_first(f"{_Q}.qweight", 64)),
        "wrong-shape",
    ),
}


CASES |= {
    "w8a8 scale gone": ("w8a8", _tensors(lambda t: t.pop(f"{_Q}.weight_scale")), "wrong-shape"),
    "w8a8 weight gone": ("w8a8", _tensors(lambda t: t.pop(f"{_Q}.weight")), "tensor-missing"),
    "w8a8 scale of a wrong shape": (
        "w8a8",
        _tensors(lambda t: t.update({f"{_Q}.weight_scale": torch.ones(128, 3)})),
        "wrong-shape",
    ),
    "w8a8 scale in integers": (
        "w8a8",
        _tensors(lambda t: t.update({f"{_Q}.weight_scale": torch.ones(128, 1, dtype=torch.int8)})),
        "wrong-shape",
    ),
    "w8a8 weight of three dimensions": (
        "w8a8",
        _tensors(lambda t: t.update({f"{_Q}.weight": t[f"{_Q}.weight"][None].contiguous()})),
        "wrong-shape",
    ),
    "w8a8 zero points of another type": (
        "w8a8",
        _tensors(lambda t: t.update({f"{_Q}.weight_zero_point": torch.zeros(128, 1)})),
        "wrong-shape",
    ),
    "w8a8 with a scale of inputs that are not quantised": (
        "w8a8",
        _tensors(lambda t: t.update({f"{_Q}.input_scale": torch.ones(1)})),
        "tensor-unknown",
    ),
    "fp8 with a scale of outputs": (
        "fp8-tensor",
        _tensors(lambda t: t.update({f"{_Q}.output_scale": torch.ones(1)})),
        "tensor-unknown",
    ),
    "fp8 with a scale of the cache": (
        "fp8-tensor",
        _tensors(lambda t: t.update({f"{_Q[:-7]}.k_scale": torch.ones(1)})),
        "tensor-unknown",
    ),
    "fp8 cache": (
        "fp8-tensor",
        _scheme(kv_cache_scheme={"num_bits": 8, "type": "float"}),
        "unsupported-scheme",
    ),
    "fp8 in blocks": ("fp8-channel", _group("weights", strategy="block"), "unsupported-scheme"),
    "fp8 of six bits": ("fp8-channel", _group("weights", num_bits=6), "unsupported-scheme"),
    "inputs are a text": ("w8a8", _group("input_activations", num_bits="x"), "not-a-checkpoint"),
    "quantised outputs": (
        "w8a8",
        _group("output_activations", num_bits=8, type="int"),
        "unsupported-scheme",
    ),
    "fp8 of another kind": (
        "fp8-channel",
        _tensors(lambda t: t.update({f"{_Q}.weight": torch.zeros(128, 128).to(torch.float8_e5m2)})),
        "wrong-shape",
    ),
    "fp8 that is no number": (
        "fp8-channel",
        _tensors(lambda t: t[f"{_Q}.weight"].view(torch.uint8)[3].fill_(0x7F)),
        "tensor-not-finite",
    ),
    "fp8 that overflows": (
        "fp8-channel",
        _tensors(lambda t: t[f"{_Q}.weight_scale"].fill_(3e38)),
        "tensor-not-finite",
    ),
    "int8 without factors": ("llm-int8", _tensors(lambda t: t.pop(f"{_Q}.SCB")), "wrong-shape"),
    "int8 without codes": ("llm-int8", _tensors(lambda t: t.pop(f"{_Q}.weight")), "tensor-missing"),
    "int8 in tiles": (
        "llm-int8",
        _tensors(lambda t: t[f"{_Q}.weight_format"].fill_(2)),
        "unsupported-scheme",
    ),
    "int8 of factors without end": (
        "llm-int8",
        _tensors(lambda t: t[f"{_Q}.SCB"].fill_(float("inf"))),
        "tensor-not-finite",
    ),
    "fp4": ("nf4", _scheme(bnb_4bit_quant_type="fp4"), "unsupported-scheme"),
    "fp4 under an nf4 config": (
        "nf4",
        _tensors(lambda t: t.update({f"{_Q}.weight.quant_state.bitsandbytes__fp4": torch.ones(2)})),
        "unsupported-scheme",
    ),
    "nf4 stored in floats": (
        "nf4",
        _tensors(lambda t: t.update({f"{_Q}.weight": torch.zeros(1152, 1)})),
        "unsupported-scheme",
    ),
    "nf4 codes too few": (
        "nf4",
        _tensors(lambda t: t.update({f"{_Q}.weight": t[f"{_Q}.weight"][1:].clone()})),
        "wrong-shape",
    ),
    "nf4 map gone": ("nf4", _tensors(lambda t: t.pop(f"{_Q}.weight.quant_map")), "tensor-missing"),
    "nf4 map of no number": (
        "nf4",
        _tensors(lambda t: t[f"{_Q}.weight.quant_map"].fill_(float("nan"))),
        "tensor-not-finite",
    ),
    "nf4 factors in integers": (
        "nf4",
        _tensors(
            lambda t: t.update({f"{_Q}.weight.absmax": torch.ones(144, dtype=torch.uint8)}),
        ),
        "wrong-shape",
    ),
    "nf4 outer factors gone": (
        "nf4-double",
        _tensors(lambda t: t.pop(f"{_Q}.weight.nested_absmax")),
        "tensor-missing",
    ),
    "nf4 state is no JSON": ("nf4", _nf4_state(b"{"), "wrong-shape"),
    "nf4 state is deep": ("nf4", _nf4_state(b"[" * 60_000), "wrong-shape"),
    "nf4 state is long": ("nf4", _nf4_state(b" " * 100_000), "wrong-shape"),
    "nf4 state is a list": ("nf4", _nf4_state(b"[]"), "not-a-checkpoint"),
    "nf4 blocks of nothing": ("nf4", _nf4_state(blocksize=0), "not-a-checkpoint"),
    "nf4 of another size": ("nf4", _nf4_state(shape=[1 << 24, 1 << 24]), "wrong-shape"),
    "nf4 rows of odd length": ("nf4", _nf4_state(shape=[9216, 1]), "wrong-shape"),
    "nf4 of an unknown dtype": ("nf4", _nf4_state(dtype="float128"), "wrong-shape"),
    "nf4 offset of no number": (
        "nf4-double",
        _nf4_state(nested_offset=float("nan")),
        "not-a-checkpoint",
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
