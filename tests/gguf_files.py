"""Checkpoints as GGUF files, by the gguf package: what llama.cpp's converter would write.

Names of tensors are the package's own map; the converter's changes of values (rotary
halves interleaved, 1 added to Gemma's norms) are spelt out here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.checkpoints import CHAT_TEMPLATE, SPECIAL_TOKENS

#: By ``model_type``: the name in GGUF.
ARCHITECTURES: MappingProxyType[str, str] = MappingProxyType(
    {
        "gemma2": "gemma2",
        "gemma3_text": "gemma3",
        "llama": "llama",
        "mistral": "llama",
        "phi3": "phi3",
        "qwen2": "qwen2",
        "qwen3": "qwen3",
        "smollm3": "smollm3",
    }
)
_INTERLEAVED = frozenset({"llama", "smollm3"})
_BLOCK = 256
#: By K-quant: bytes of a block, and its float16 scales by where they are.  The second of two
#: is of the least values, and such that values are about zero on average.
_K_QUANTS: MappingProxyType[str, tuple[int, dict[int, float]]] = MappingProxyType(
    {
        "Q4_K": (144, {0: 1e-4, 2: 7.5e-4}),
        "Q5_K": (176, {0: 5e-5, 2: 7.75e-4}),
        "Q6_K": (210, {208: 2e-5}),
    }
)


def write_gguf(
    checkpoint: Path,
    path: Path,
    kind: str,
    change: Callable[[Any], None] | None = None,
    tokenizer: Callable[[Any], None] | None = None,
) -> Path:
    """Write the folder ``checkpoint`` to ``path``; matrices become blocks of ``kind``.

    ``change`` may add keys and tensors; ``tokenizer`` writes one in the checkpoint's place.
    """
    from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
    from safetensors.torch import load_file

    config = json.loads((checkpoint / "config.json").read_bytes())
    name = ARCHITECTURES[config["model_type"]]
    architecture = next(key for key, value in MODEL_ARCH_NAMES.items() if value == name)
    names = get_tensor_name_map(architecture, config["num_hidden_layers"])
    writer = GGUFWriter(path, name)
    _add_sizes(writer, config)
    if tokenizer is None:
        _add_tokenizer(writer, checkpoint, config["vocab_size"])
    else:
        tokenizer(writer)
    if change is not None:
        change(writer)
    for key, tensor in load_file(checkpoint / "model.safetensors").items():
        values = tensor.float().numpy()
        stem = names.get_name(key, (".weight", ".bias"))
        assert stem is not None, key
        if name in _INTERLEAVED and ".attn_q." in stem:
            values = interleave(values, config["num_attention_heads"])
        if name in _INTERLEAVED and ".attn_k." in stem:
            values = interleave(values, config["num_key_value_heads"])
        if name.startswith("gemma") and stem.endswith("norm.weight"):
            values = values + 1
        if values.ndim == 1:
            writer.add_tensor(stem, values)
        else:
            blocks, stored = _blocks(values, GGMLQuantizationType[kind])
            writer.add_tensor(stem, blocks, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def interleave(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Rows as llama.cpp rotates them: a head's row i and row i + dim / 2 become neighbours."""
    dim = len(values) // heads
    out = np.empty_like(values)
    for head in range(heads):
        for i in range(dim // 2):
            out[head * dim + 2 * i] = values[head * dim + i]
            out[head * dim + 2 * i + 1] = values[head * dim + i + dim // 2]
    return out


def _blocks(values: NDArray[np.float32], kind: Any) -> tuple[NDArray[Any], Any]:
    from gguf import dequantize, quantize

    if kind.name in _K_QUANTS:
        # The package reads K-quants but writes none: these blocks are random, their
        # scales small, and what the matrix holds is whatever they mean.
        rows, columns = values.shape
        flat = random_blocks(kind.name, rows * columns // _BLOCK).reshape(rows, -1)
        assert np.abs(dequantize(flat, kind)).max() < 1
        return flat, kind
    return quantize(values, kind), kind


def random_blocks(kind: str, count: int) -> NDArray[np.uint8]:
    """Blocks of a K-quant with weights of 0.1 and less, uint8 [count, bytes]."""
    size, scales = _K_QUANTS[kind]
    blocks = np.random.default_rng(count).integers(0, 256, (count, size), np.uint8)
    for at, scale in scales.items():
        blocks[:, at : at + 2] = np.full((count, 1), scale, "<f2").view("u1")
    return blocks


def _add_sizes(writer: Any, config: dict[str, Any]) -> None:
    rotary = config.get("rope_parameters", {})
    whole = rotary.get("full_attention", rotary)
    heads = config["num_attention_heads"]
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_value_length(config.get("head_dim") or config["hidden_size"] // heads)
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(whole["rope_theta"])
    if config.get("sliding_window"):
        writer.add_sliding_window(config["sliding_window"])
    if config.get("attn_logit_softcapping"):
        writer.add_attn_logit_softcapping(config["attn_logit_softcapping"])
        writer.add_final_logit_softcapping(config["final_logit_softcapping"])


def _add_tokenizer(writer: Any, checkpoint: Path, vocabulary: int) -> None:
    model = json.loads((checkpoint / "tokenizer.json").read_bytes())["model"]
    tokens = sorted(model["vocab"], key=model["vocab"].__getitem__)
    # The converter fills the vocabulary up to the embedding's rows.
    tokens += [f"[PAD{number}]" for number in range(len(tokens), vocabulary)]
    kinds = [3 if token in SPECIAL_TOKENS else 5 if "[PAD" in token else 1 for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges([" ".join(merge) for merge in model["merges"]])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE)
