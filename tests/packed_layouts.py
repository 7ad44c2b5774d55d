"""Writes packed checkpoints, code by code, from what their formats say.

Neither gptqmodel nor AutoAWQ can be installed beside torch 2.13, and compressed-tensors put
columns in order of activations up to 0.12 only, so these loops stand in for them: one code
at a time, in Python's own integers, sharing nothing with the exporter.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Tensors = dict[str, NDArray[Any]]

#: Linears that read the same activations have the same act-order.
_INPUTS = {"q_proj": "x", "k_proj": "x", "v_proj": "x", "gate_proj": "y", "up_proj": "y"}
#: From the lowest bits of a word up, the output whose code is there.
_AWQ_ORDER = [0, 2, 4, 6, 1, 3, 5, 7]


@dataclass(frozen=True)
class Layout:
    """How a plain checkpoint is to be rewritten; ``group`` -1 is one group a row."""

    method: Literal["gptq", "awq", "compressed-tensors"]
    bits: int = 4
    group: int = 32
    symmetric: bool = True
    act_order: bool = False
    checkpoint_format: Literal["gptq", "gptq_v2"] = "gptq"
    head: bool = False


@dataclass(frozen=True)
class Linear:
    """A quantised linear: codes [N][K], zero points and scales [N][G], groups [K]."""

    codes: NDArray[np.int64]
    zeros: NDArray[np.int64]
    scales: NDArray[np.float16]
    groups: NDArray[np.int64]

    def values(self) -> NDArray[np.float32]:
        """What it stands for, float32 [N, K]."""
        centred = (self.codes - self.zeros[:, self.groups]).astype(np.float32)
        return centred * self.scales.astype(np.float32)[:, self.groups]


def rewrite(folder: Path, layout: Layout) -> dict[str, Linear]:
    """Quantise the plain checkpoint in ``folder`` in place; give what was written."""
    tensors: Tensors = load_file(folder / "model.safetensors")
    written = {}
    kept = {"model.embed_tokens.weight"} | (set() if layout.head else {"lm_head.weight"})
    for name in [name for name, values in tensors.items() if values.ndim == 2]:
        if name in kept:
            continue
        module = name.removesuffix(".weight")
        parent, _, leaf = module.rpartition(".")
        seed = crc32(f"{parent}.{_INPUTS.get(leaf, leaf)}".encode())
        linear = quantise(tensors.pop(name).astype(np.float32), layout, seed)
        written[name] = linear
        tensors |= {f"{module}.{part}": value for part, value in pack(linear, layout).items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = describe(layout)
    (folder / "config.json").write_text(json.dumps(config))
    return written


def describe(layout: Layout) -> dict[str, Any]:
    """The ``quantization_config`` that these libraries write."""
    common = {"quant_method": layout.method, "bits": layout.bits, "group_size": layout.group}
    if layout.method == "awq":
        return common | {"zero_point": not layout.symmetric, "version": "gemm"}
    if layout.method == "compressed-tensors":
        weights = {
            "num_bits": layout.bits,
            "type": "int",
            "symmetric": layout.symmetric,
            "strategy": "group",
            "group_size": layout.group,
            "actorder": "group" if layout.act_order else None,
        }
        return {
            "quant_method": layout.method,
            "format": "pack-quantized",
            "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
            "ignore": [] if layout.head else ["lm_head"],
        }
    return common | {
        "sym": layout.symmetric,
        "desc_act": layout.act_order,
        "checkpoint_format": layout.checkpoint_format,
        "lm_head": layout.head,
        "damp_percent": 0.01,
        "meta": {"quantizer": ["gptqmodel:2.0.0"]},
    }


def quantise(weight: NDArray[np.float32], layout: Layout, seed: int) -> Linear:
    """Round to nearest in groups of inputs, scattered when in act-order."""
    rows, columns = weight.shape
    group = columns if layout.group == -1 else layout.group
    groups = np.arange(columns) // group
    if layout.act_order:
        groups = np.random.default_rng(seed).permutation(groups)
    top = 2**layout.bits - 1
    codes = np.zeros((rows, columns), np.int64)
    zeros = np.zeros((rows, columns // group), np.int64)
    scales = np.zeros((rows, columns // group), np.float16)
    for number in range(columns // group):
        members = groups == number
        block = weight[:, members]
        if layout.symmetric:
            zeros[:, number] = 2 ** (layout.bits - 1)
            scales[:, number] = np.abs(block).max(1) / (top // 2)
        else:
            low, high = np.minimum(block.min(1), 0), np.maximum(block.max(1), 0)
            scales[:, number] = (high - low) / top
            zeros[:, number] = np.clip(np.rint(-low / scales[:, number]), 0, top)
        steps = np.rint(block / scales[:, number, None].astype(np.float32))
        codes[:, members] = np.clip(steps + zeros[:, number, None], 0, top)
    return Linear(codes, zeros, scales, groups)


def pack(linear: Linear, layout: Layout) -> Tensors:
    """The tensors of one linear, by the ending of their names."""
    transposed = {"scales": np.ascontiguousarray(linear.scales.T)}
    if layout.method == "awq":
        return transposed | {
            "qweight": _words(linear.codes.T, 4, _AWQ_ORDER),
            "qzeros": _words(linear.zeros.T, 4, _AWQ_ORDER),
        }
    plain = list(range(32 // layout.bits))
    if layout.method == "compressed-tensors":
        parts: Tensors = {
            "weight_packed": _words(linear.codes, layout.bits, plain),
            "weight_shape": np.array(linear.codes.shape),
            "weight_scale": linear.scales,
        }
        if not layout.symmetric:
            zeros = _words(linear.zeros.T, layout.bits, plain)
            parts["weight_zero_point"] = np.ascontiguousarray(zeros.T)
        if layout.act_order:
            parts["weight_g_idx"] = linear.groups.astype(np.int32)
        return parts
    less = 1 if layout.checkpoint_format == "gptq" else 0
    return transposed | {
        "qweight": np.ascontiguousarray(_words(linear.codes, layout.bits, plain).T),
        "qzeros": _words(linear.zeros.T - less, layout.bits, plain),
        "g_idx": linear.groups.astype(np.int32),
    }


def _words(codes: NDArray[np.int64], bits: int, order: list[int]) -> NDArray[np.int32]:
    """Rows of codes as rows of words.

    A code of -1 borrows from the next, as it does where the library that wrote the format
    subtracts ones from a whole word.
    """
    words: list[list[int]] = []
    for row in codes.tolist():
        words.append([])
        for start in range(0, len(row), len(order)):
            word = sum(row[start + place] << (bits * at) for at, place in enumerate(order))
            words[-1].append(word % 2**32)
    return np.array(words, np.uint32).view(np.int32)
