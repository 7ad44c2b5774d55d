"""The smallest checkpoints that the exporter takes, one of each kind, as files in memory.

They are made of ones, by hand: what the bytes of a weight stand for is tested elsewhere,
here it only matters that the valid input passes, and that its mutants do no harm.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.attacks import tiny_tokenizers
from tests.attacks.mutate import Pairs, write

Files = Mapping[str, bytes]
Tensors = dict[str, NDArray[Any]]
HIDDEN = 32
_Q = "model.layers.0.self_attn.q_proj"
_UP = "model.layers.0.mlp.up_proj"
_FLOAT8 = np.dtype("V1")
_DTYPES = {
    "float16": "F16",
    "float32": "F32",
    "int64": "I64",
    "int32": "I32",
    "int8": "I8",
    "uint8": "U8",
    _FLOAT8.name: "F8_E4M3",
}


def safetensors(tensors: Mapping[str, NDArray[Any]]) -> bytes:
    """A safetensors file; a void of one byte stands for float8."""
    header, body = Pairs(), b""
    for name, values in tensors.items():
        data = values.tobytes()
        entry = Pairs(
            [
                ("dtype", _DTYPES[values.dtype.name]),
                ("shape", list(values.shape)),
                ("data_offsets", [len(body), len(body) + len(data)]),
            ]
        )
        header.append((name, entry))
        body += data
    text = write(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def _config(scheme: dict[str, Any] | None) -> bytes:
    config: dict[str, Any] = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": 8,
        "hidden_size": HIDDEN,
        "intermediate_size": HIDDEN,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 64,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": [2, 3],
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    if scheme is not None:
        config["quantization_config"] = scheme
    return json.dumps(config).encode()


def _floats() -> Tensors:
    return {
        "model.embed_tokens.weight": np.ones((8, HIDDEN), np.float16),
        "model.norm.weight": np.ones(HIDDEN, np.float32),
    }


def _folder(tensors: Mapping[str, NDArray[Any]], scheme: dict[str, Any] | None = None) -> Files:
    return {
        "config.json": _config(scheme),
        "tokenizer.json": tiny_tokenizers.small(),
        "tokenizer_config.json": b"{}",
        "model.safetensors": safetensors({**_floats(), **tensors}),
    }


def _square(dtype: Any = np.float16) -> NDArray[Any]:
    return np.ones((HIDDEN, HIDDEN), dtype)


def plain() -> Files:
    """Linears in floats."""
    return _folder({f"{_Q}.weight": _square(), f"{_UP}.weight": _square(np.float32)})


def whole() -> Files:
    """All that the architecture asks for, so that it can be exported."""
    layer = "model.layers.0"
    tensors: Tensors = {
        **{f"{layer}.self_attn.{part}_proj.weight": _square() for part in "qo"},
        **{f"{layer}.self_attn.{part}_proj.weight": _square()[:16] for part in "kv"},
        **{f"{layer}.mlp.{part}_proj.weight": _square() for part in ("gate", "up", "down")},
        f"{layer}.input_layernorm.weight": np.ones(HIDDEN, np.float16),
        f"{layer}.post_attention_layernorm.weight": np.ones(HIDDEN, np.float16),
    }
    generation = {"bos_token_id": 1, "eos_token_id": [2, 3], "temperature": 0.7}
    return {**_folder(tensors), "generation_config.json": json.dumps(generation).encode()}


def tokenized() -> Files:
    """The same with a tokenizer of many parts."""
    return {**plain(), "tokenizer.json": tiny_tokenizers.large()}


def sharded() -> Files:
    """The same in two files with an index."""
    files = dict(plain())
    first, second = _floats(), {f"{_Q}.weight": _square(), f"{_UP}.weight": _square()}
    del files["model.safetensors"]
    names = dict.fromkeys(first, "model-00001-of-00002.safetensors")
    names |= dict.fromkeys(second, "model-00002-of-00002.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    return files | {
        "model.safetensors.index.json": json.dumps(index).encode(),
        "model-00001-of-00002.safetensors": safetensors(first),
        "model-00002-of-00002.safetensors": safetensors(second),
    }


def _compressed(form: str, kind: str, bits: int) -> dict[str, Any]:
    weights = {"num_bits": bits, "type": kind, "strategy": "group", "group_size": 16}
    inputs = {"num_bits": 8, "type": "int", "strategy": "token", "dynamic": True}
    group = {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
    return {
        "quant_method": "compressed-tensors",
        "format": form,
        "config_groups": {"group_0": group},
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
    }


def packed() -> Files:
    """compressed-tensors W4A16 with zero points, in act-order."""
    tensors: Tensors = {
        f"{_Q}.weight_packed": np.full((HIDDEN, HIDDEN // 8), 0x12345678, np.int32),
        f"{_Q}.weight_scale": np.ones((HIDDEN, 2), np.float16),
        f"{_Q}.weight_shape": np.array([HIDDEN, HIDDEN], np.int64),
        f"{_Q}.weight_zero_point": np.full((HIDDEN // 8, 2), 0x11111111, np.int32),
        f"{_Q}.weight_g_idx": (np.arange(HIDDEN) % 2).astype(np.int32),
    }
    return _folder(tensors, _compressed("pack-quantized", "int", 4))


def int8() -> Files:
    """compressed-tensors W8A8."""
    tensors: Tensors = {
        f"{_Q}.weight": _square(np.int8),
        f"{_Q}.weight_scale": np.ones((HIDDEN, 1), np.float16),
        f"{_Q}.weight_zero_point": np.ones((HIDDEN, 1), np.int8),
    }
    return _folder(tensors, _compressed("int-quantized", "int", 8))


def float8() -> Files:
    """compressed-tensors FP8."""
    tensors: Tensors = {
        f"{_Q}.weight": _square(np.uint8).view(_FLOAT8),
        f"{_Q}.weight_scale": np.ones(1, np.float32),
    }
    return _folder(tensors, _compressed("float-quantized", "float", 8))


def sparse() -> Files:
    """compressed-tensors' sparse-bitmask, half of every row set."""
    tensors: Tensors = {
        f"{_Q}.shape": np.array([HIDDEN, HIDDEN], np.int64),
        f"{_Q}.bitmask": np.full((HIDDEN, HIDDEN // 8), 0x0F, np.uint8),
        f"{_Q}.compressed": np.ones(HIDDEN * HIDDEN // 2, np.float16),
        f"{_Q}.row_offsets": np.arange(HIDDEN, dtype=np.int64) * (HIDDEN // 2),
    }
    sparsity = {"format": "sparse-bitmask", "sparsity_structure": "unstructured"}
    scheme = {"quant_method": "compressed-tensors", "sparsity_config": sparsity}
    return _folder(tensors, scheme)


def gptq() -> Files:
    """GPTQ in act-order."""
    tensors: Tensors = {
        f"{_Q}.qweight": np.full((HIDDEN // 8, HIDDEN), 0x12345678, np.int32),
        f"{_Q}.qzeros": np.full((2, HIDDEN // 8), 0x77777777, np.int32),
        f"{_Q}.scales": np.ones((2, HIDDEN), np.float16),
        f"{_Q}.g_idx": (np.arange(HIDDEN) % 2).astype(np.int32),
    }
    scheme = {"quant_method": "gptq", "bits": 4, "group_size": 16, "desc_act": True, "sym": True}
    return _folder(tensors, scheme | {"checkpoint_format": "gptq", "is_marlin_format": False})


def awq() -> Files:
    """AWQ."""
    tensors: Tensors = {
        f"{_Q}.qweight": np.full((HIDDEN, HIDDEN // 8), 0x12345678, np.int32),
        f"{_Q}.qzeros": np.full((2, HIDDEN // 8), 0x77777777, np.int32),
        f"{_Q}.scales": np.ones((2, HIDDEN), np.float16),
    }
    scheme = {"quant_method": "awq", "bits": 4, "group_size": 16, "zero_point": True}
    return _folder(tensors, scheme | {"version": "gemm"})


def llm_int8() -> Files:
    """bitsandbytes LLM.int8()."""
    tensors: Tensors = {
        f"{_Q}.weight": _square(np.int8),
        f"{_Q}.SCB": np.ones(HIDDEN, np.float32),
        f"{_Q}.weight_format": np.zeros((), np.uint8),
    }
    return _folder(tensors, {"quant_method": "bitsandbytes", "load_in_8bit": True})


def nf4() -> Files:
    """bitsandbytes NF4 with double quantisation; quant_state is the last tensor."""
    state = {
        "quant_type": "nf4",
        "blocksize": 64,
        "dtype": "float16",
        "shape": [HIDDEN, HIDDEN],
        "nested_blocksize": 8,
        "nested_dtype": "float32",
        "nested_offset": 0.5,
    }
    blocks = HIDDEN * HIDDEN // 64
    tensors: Tensors = {
        f"{_Q}.weight": np.full((HIDDEN * HIDDEN // 2, 1), 0x1F, np.uint8),
        f"{_Q}.weight.absmax": np.ones(blocks, np.uint8),
        f"{_Q}.weight.quant_map": np.linspace(-1, 1, 16, dtype=np.float32),
        f"{_Q}.weight.nested_absmax": np.ones(blocks // 8, np.float32),
        f"{_Q}.weight.nested_quant_map": np.linspace(-1, 1, 256, dtype=np.float32),
        f"{_Q}.weight.quant_state.bitsandbytes__nf4": np.frombuffer(
            json.dumps(state).encode(), np.uint8
        ),
    }
    scheme = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    return _folder(tensors, scheme)


def _adapter(*, dora: bool) -> Files:
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": 4,
        "lora_alpha": 8,
        "use_dora": dora,
        "use_rslora": not dora,
        "bias": "none",
        "init_lora_weights": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"q_proj": 3},
        "target_modules": ["q_proj", "up_proj"],
        "exclude_modules": None,
        "layers_to_transform": [0],
        "modules_to_save": ["norm"],
        "lora_dropout": 0.1,
    }
    tensors: Tensors = {"base_model.model.model.norm.weight": np.ones(HIDDEN, np.float32)}
    for module, rank in ((_Q, 2), (_UP, 4)):
        tensors[f"base_model.model.{module}.lora_A.weight"] = np.ones((rank, HIDDEN), np.float32)
        tensors[f"base_model.model.{module}.lora_B.weight"] = np.ones((HIDDEN, rank), np.float16)
        if dora:
            length = np.ones(HIDDEN, np.float32)
            tensors[f"base_model.model.{module}.lora_magnitude_vector"] = length
    return {
        **plain(),
        "adapter/adapter_config.json": json.dumps(config).encode(),
        "adapter/adapter_model.safetensors": safetensors(tensors),
    }


def lora() -> Files:
    """A plain checkpoint and an rsLoRA."""
    return _adapter(dora=False)


def dora() -> Files:
    """A plain checkpoint and a DoRA."""
    return _adapter(dora=True)
