"""Compressed checkpoints whose parts contradict each other: each is refused with its own code."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.attacks.damage import (
    Damage,
    Q,
    in_group,
    in_scheme,
    in_state,
    in_tensors,
    keep_first,
    poison,
    refused,
    set_first,
)

Factory = Callable[[str], Path]
_GPTQ = "gptq-act-order"
_ASYMMETRIC = "w4a16-g32-asymmetric"

CASES: dict[str, tuple[str, Damage, str]] = {
    "groups are a list": ("w4a16-g32", in_scheme(config_groups=[1]), "not-a-checkpoint"),
    "bits are a text": (
        "w4a16-g32",
        in_scheme(config_groups={"g": {"weights": {"num_bits": "four", "type": "int"}}}),
        "not-a-checkpoint",
    ),
    "a scale that is no number": (
        "w4a16-g32",
        in_tensors(poison(f"{Q}.weight_scale")),
        "tensor-not-finite",
    ),
    "unknown method": ("w4a16-g32", in_scheme(quant_method="quip"), "unsupported-scheme"),
    "unknown format": (
        "w4a16-g32",
        in_scheme(
            config_groups={
                "g": {
                    "format": "nvfp4-pack-quantized",
                    "weights": {"num_bits": 4, "type": "float"},
                }
            }
        ),
        "unsupported-scheme",
    ),
    "scale gone": ("w4a16-g32", in_tensors(lambda t: t.pop(f"{Q}.weight_scale")), "tensor-missing"),
    "scale of a wrong shape": (
        "w4a16-g32",
        in_tensors(lambda t: t.update({f"{Q}.weight_scale": torch.ones(4, 4)})),
        "wrong-shape",
    ),
    "scale without end": (
        "w4a16-g32",
        in_tensors(poison(f"{Q}.weight_scale", float("inf"))),
        "tensor-not-finite",
    ),
    "scale in integers": (
        "w4a16-g32",
        in_tensors(lambda t: t.update({f"{Q}.weight_scale": t[f"{Q}.weight_scale"].int()})),
        "wrong-shape",
    ),
    "zero points in floats": (
        _ASYMMETRIC,
        in_tensors(lambda t: t.update({f"{Q}.weight_zero_point": torch.zeros(16, 4)})),
        "wrong-shape",
    ),
    "zero points in bytes": (
        _ASYMMETRIC,
        in_tensors(
            lambda t: t.update({f"{Q}.weight_zero_point": torch.zeros(16, 4, dtype=torch.int8)})
        ),
        "wrong-shape",
    ),
    "zero points that are not packed": (
        _ASYMMETRIC,
        in_tensors(
            lambda t: t.update({f"{Q}.weight_zero_point": torch.zeros(128, 4, dtype=torch.int32)})
        ),
        "wrong-shape",
    ),
    "groups that do not divide": (
        "w4a16-g32",
        in_tensors(lambda t: t.update({f"{Q}.weight_scale": torch.ones(128, 3)})),
        "wrong-shape",
    ),
    "shape of no rank": (
        "w4a16-g32",
        in_tensors(lambda t: t.update({f"{Q}.weight_shape": torch.tensor(128)})),
        "wrong-shape",
    ),
    "shape of floats": (
        "w4a16-g32",
        in_tensors(lambda t: t.update({f"{Q}.weight_shape": torch.tensor([float("nan"), 128.0])})),
        "wrong-shape",
    ),
    "negative shape": (
        "w4a16-g32",
        in_tensors(lambda t: t.update({f"{Q}.weight_shape": torch.tensor([-1, 128])})),
        "wrong-shape",
    ),
    "shape of another size": (
        "w4a16-g32",
        in_tensors(lambda t: t.update({f"{Q}.weight_shape": torch.tensor([128, 1 << 40])})),
        "wrong-shape",
    ),
    "activation order": (
        "w4a16-g32",
        in_tensors(lambda t: t.update({f"{Q}.weight_g_idx": torch.zeros(128, dtype=torch.int32)})),
        "unsupported-scheme",
    ),
    "gptq: bits are a text": (_GPTQ, in_scheme(bits="four"), "not-a-checkpoint"),
    "gptq: layout is a list": (_GPTQ, in_scheme(checkpoint_format=["gptq"]), "not-a-checkpoint"),
    "gptq: three bits": (_GPTQ, in_scheme(bits=3), "unsupported-scheme"),
    "gptq: marlin": (_GPTQ, in_scheme(checkpoint_format="marlin"), "unsupported-scheme"),
    "gptq: no groups": (_GPTQ, in_tensors(lambda t: t.pop(f"{Q}.g_idx")), "tensor-missing"),
    "gptq: no scales": (_GPTQ, in_tensors(lambda t: t.pop(f"{Q}.scales")), "tensor-missing"),
    "gptq: no zero points": (_GPTQ, in_tensors(lambda t: t.pop(f"{Q}.qzeros")), "tensor-missing"),
    "gptq: no codes": (_GPTQ, in_tensors(lambda t: t.pop(f"{Q}.qweight")), "wrong-shape"),
    "gptq: codes and floats": (
        _GPTQ,
        in_tensors(lambda t: t.update({f"{Q}.weight": torch.zeros(128, 128)})),
        "wrong-shape",
    ),
    "gptq: a group below none": (_GPTQ, in_tensors(set_first(f"{Q}.g_idx", -1)), "wrong-shape"),
    "gptq: a group beyond all": (
        _GPTQ,
        in_tensors(set_first(f"{Q}.g_idx", 1 << 30)),
        "wrong-shape",
    ),
    "gptq: groups of unequal size": (
        _GPTQ,
        in_tensors(lambda t: t[f"{Q}.g_idx"].fill_(0)),
        "unsupported-scheme",
    ),
    "gptq: fewer inputs than codes": (
        _GPTQ,
        in_tensors(keep_first(f"{Q}.g_idx", 40)),
        "wrong-shape",
    ),
    "gptq: fewer zero points than groups": (
        _GPTQ,
        in_tensors(keep_first(f"{Q}.qzeros", 3)),
        "wrong-shape",
    ),
    "gptq: scales of fewer outputs": (
        _GPTQ,
        in_tensors(lambda t: t.update({f"{Q}.scales": torch.ones(4, 64)})),
        "wrong-shape",
    ),
    "gptq: codes in bytes": (
        _GPTQ,
        in_tensors(lambda t: t.update({f"{Q}.qweight": t[f"{Q}.qweight"].view(torch.uint8)})),
        "wrong-shape",
    ),
    "gptq: a scale that is no number": (
        _GPTQ,
        in_tensors(poison(f"{Q}.scales")),
        "tensor-not-finite",
    ),
    "gptq: scales without end, to be rounded again": (
        "gptq-w8-act-order",
        in_tensors(lambda t: t[f"{Q}.scales"].fill_(float("inf"))),
        "tensor-not-finite",
    ),
    "awq: bits are a text": ("awq", in_scheme(bits="four"), "not-a-checkpoint"),
    "awq: gemv": ("awq", in_scheme(version="gemv"), "unsupported-scheme"),
    "awq: no scales": ("awq", in_tensors(lambda t: t.pop(f"{Q}.scales")), "tensor-missing"),
    "awq: no zero points": ("awq", in_tensors(lambda t: t.pop(f"{Q}.qzeros")), "tensor-missing"),
    "awq: a scale that is no number": (
        "awq",
        in_tensors(poison(f"{Q}.scales")),
        "tensor-not-finite",
    ),
    "awq: zero points in floats": (
        "awq",
        in_tensors(lambda t: t.update({f"{Q}.qzeros": t[f"{Q}.qzeros"].float()})),
        "wrong-shape",
    ),
    "awq: groups that do not divide": (
        "awq",
        in_tensors(lambda t: t.update({f"{Q}.scales": torch.ones(3, 128)})),
        "wrong-shape",
    ),
    "awq: fewer zero points than groups": (
        "awq",
        in_tensors(keep_first(f"{Q}.qzeros", 1)),
        "wrong-shape",
    ),
    "awq: another size than the config's": (
        "awq",
        in_tensors(keep_first(f"{Q}.qweight", 64)),
        "wrong-shape",
    ),
    "w8a8 scale gone": ("w8a8", in_tensors(lambda t: t.pop(f"{Q}.weight_scale")), "wrong-shape"),
    "w8a8 weight gone": ("w8a8", in_tensors(lambda t: t.pop(f"{Q}.weight")), "tensor-missing"),
    "w8a8 scale of a wrong shape": (
        "w8a8",
        in_tensors(lambda t: t.update({f"{Q}.weight_scale": torch.ones(128, 3)})),
        "wrong-shape",
    ),
    "w8a8 scale in integers": (
        "w8a8",
        in_tensors(lambda t: t.update({f"{Q}.weight_scale": torch.ones(128, 1, dtype=torch.int8)})),
        "wrong-shape",
    ),
    "w8a8 weight of three dimensions": (
        "w8a8",
        in_tensors(lambda t: t.update({f"{Q}.weight": t[f"{Q}.weight"][None].contiguous()})),
        "wrong-shape",
    ),
    "w8a8 zero points of another type": (
        "w8a8",
        in_tensors(lambda t: t.update({f"{Q}.weight_zero_point": torch.zeros(128, 1)})),
        "wrong-shape",
    ),
    "w8a8 with a scale of inputs that are not quantised": (
        "w8a8",
        in_tensors(lambda t: t.update({f"{Q}.input_scale": torch.ones(1)})),
        "tensor-unknown",
    ),
    "fp8 with a scale of outputs": (
        "fp8-tensor",
        in_tensors(lambda t: t.update({f"{Q}.output_scale": torch.ones(1)})),
        "tensor-unknown",
    ),
    "fp8 with a scale of the cache": (
        "fp8-tensor",
        in_tensors(lambda t: t.update({f"{Q[:-7]}.k_scale": torch.ones(1)})),
        "tensor-unknown",
    ),
    "fp8 cache": (
        "fp8-tensor",
        in_scheme(kv_cache_scheme={"num_bits": 8, "type": "float"}),
        "unsupported-scheme",
    ),
    "fp8 in blocks": ("fp8-channel", in_group("weights", strategy="block"), "unsupported-scheme"),
    "fp8 of six bits": ("fp8-channel", in_group("weights", num_bits=6), "unsupported-scheme"),
    "inputs are a text": ("w8a8", in_group("input_activations", num_bits="x"), "not-a-checkpoint"),
    "quantised outputs": (
        "w8a8",
        in_group("output_activations", num_bits=8, type="int"),
        "unsupported-scheme",
    ),
    "fp8 of another kind": (
        "fp8-channel",
        in_tensors(
            lambda t: t.update({f"{Q}.weight": torch.zeros(128, 128).to(torch.float8_e5m2)})
        ),
        "wrong-shape",
    ),
    "fp8 that is no number": (
        "fp8-channel",
        in_tensors(lambda t: t[f"{Q}.weight"].view(torch.uint8)[3].fill_(0x7F)),
        "tensor-not-finite",
    ),
    "fp8 that overflows": (
        "fp8-channel",
        in_tensors(lambda t: t[f"{Q}.weight_scale"].fill_(3e38)),
        "tensor-not-finite",
    ),
    "int8 without factors": ("llm-int8", in_tensors(lambda t: t.pop(f"{Q}.SCB")), "wrong-shape"),
    "int8 without codes": (
        "llm-int8",
        in_tensors(lambda t: t.pop(f"{Q}.weight")),
        "tensor-missing",
    ),
    "int8 in tiles": (
        "llm-int8",
        in_tensors(lambda t: t[f"{Q}.weight_format"].fill_(2)),
        "unsupported-scheme",
    ),
    "int8 of factors without end": (
        "llm-int8",
        in_tensors(lambda t: t[f"{Q}.SCB"].fill_(float("inf"))),
        "tensor-not-finite",
    ),
    "fp4": ("nf4", in_scheme(bnb_4bit_quant_type="fp4"), "unsupported-scheme"),
    "fp4 under an nf4 config": (
        "nf4",
        in_tensors(
            lambda t: t.update({f"{Q}.weight.quant_state.bitsandbytes__fp4": torch.ones(2)})
        ),
        "unsupported-scheme",
    ),
    "nf4 stored in floats": (
        "nf4",
        in_tensors(lambda t: t.update({f"{Q}.weight": torch.zeros(1152, 1)})),
        "unsupported-scheme",
    ),
    "nf4 codes too few": (
        "nf4",
        in_tensors(lambda t: t.update({f"{Q}.weight": t[f"{Q}.weight"][1:].clone()})),
        "wrong-shape",
    ),
    "nf4 map gone": ("nf4", in_tensors(lambda t: t.pop(f"{Q}.weight.quant_map")), "tensor-missing"),
    "nf4 map of no number": (
        "nf4",
        in_tensors(lambda t: t[f"{Q}.weight.quant_map"].fill_(float("nan"))),
        "tensor-not-finite",
    ),
    "nf4 factors in integers": (
        "nf4",
        in_tensors(
            lambda t: t.update({f"{Q}.weight.absmax": torch.ones(144, dtype=torch.uint8)}),
        ),
        "wrong-shape",
    ),
    "nf4 outer factors gone": (
        "nf4-double",
        in_tensors(lambda t: t.pop(f"{Q}.weight.nested_absmax")),
        "tensor-missing",
    ),
    "nf4 state is no JSON": ("nf4", in_state(b"{"), "wrong-shape"),
    "nf4 state is deep": ("nf4", in_state(b"[" * 60_000), "wrong-shape"),
    "nf4 state is long": ("nf4", in_state(b" " * 100_000), "wrong-shape"),
    "nf4 state is a list": ("nf4", in_state(b"[]"), "not-a-checkpoint"),
    "nf4 blocks of nothing": ("nf4", in_state(blocksize=0), "not-a-checkpoint"),
    "nf4 of another size": ("nf4", in_state(shape=[1 << 24, 1 << 24]), "wrong-shape"),
    "nf4 rows of odd length": ("nf4", in_state(shape=[9216, 1]), "wrong-shape"),
    "nf4 in other blocks": ("nf4", in_state(blocksize=32), "wrong-shape"),
    "nf4 turned round": ("nf4-double", in_state(shape=[64, 256]), "wrong-shape"),
    "nf4 that says it is fp4": ("nf4", in_state(quant_type="fp4"), "unsupported-scheme"),
    "nf4 of a factor that is no number": (
        "nf4",
        in_tensors(poison(f"{Q}.weight.absmax")),
        "tensor-not-finite",
    ),
    "nf4 of an unknown dtype": ("nf4", in_state(dtype="float128"), "wrong-shape"),
    "nf4 offset of no number": (
        "nf4-double",
        in_state(nested_offset=float("nan")),
        "wrong-shape",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_refused_with_its_code(case: str, tiny_checkpoint: Factory, tmp_path: Path) -> None:
    variant, damage, code = CASES[case]
    refused(tiny_checkpoint(variant), damage, code, tmp_path)
