"""``config.json`` and ``generation_config.json`` of the model in a GGUF file."""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
from gguf.quants import dequantize
from numpy.typing import NDArray

from exporter.checkpoint.gguf.architectures import ARCHITECTURES, Architecture
from exporter.checkpoint.gguf.errors import UnreadableGguf, UnsupportedGguf
from exporter.checkpoint.gguf.header import Header

#: Tensors that are no weights but the factors of a rotation.
LLAMA3_FACTORS = "rope_freqs.weight"
LONG_FACTORS, SHORT_FACTORS = "rope_factors_long.weight", "rope_factors_short.weight"
_MOST_FACTORS = 1 << 12
#: Llama 3's own settings, which GGUF keeps only as the factors that come of them.
_LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
#: Control tokens that end a turn whether or not a key says so, as in llama.cpp.
_TURN_ENDS = frozenset({"<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>"})


def architecture_of(header: Header) -> Architecture:
    """The architecture that the file names.

    Raises:
        UnsupportedGguf: it is not known.
    """
    name = header.metadata.text("general.architecture")
    if name not in ARCHITECTURES:
        raise UnsupportedGguf(header.metadata.path, f"architecture {name}")
    return ARCHITECTURES[name]


def model_config(header: Header) -> dict[str, Any]:
    """``config.json``, by transformers' names.

    Raises:
        UnreadableGguf: a key is missing, or makes no sense.
        UnsupportedGguf: another architecture, or a rotation that is not known.
    """
    metadata, architecture = header.metadata, architecture_of(header)

    def own(key: str) -> str:
        return f"{metadata.text('general.architecture')}.{key}"

    if metadata.integer(own("expert_count"), 0):
        raise UnsupportedGguf(metadata.path, "a mixture of experts")
    embedding = header.tensors.get("token_embd.weight")
    if embedding is None or len(embedding.shape) != 2:
        raise UnreadableGguf(metadata.path, "has no token embedding")
    hidden = metadata.integer(own("embedding_length"))
    heads = metadata.integer(own("attention.head_count"), least=1)
    head_dim = metadata.integer(own("attention.key_length"), hidden // heads, least=1)
    if metadata.integer(own("attention.value_length"), head_dim) != head_dim:
        raise UnsupportedGguf(metadata.path, "a head whose values are not as wide as its keys")
    return {
        "architectures": [architecture.causal_lm],
        "model_type": architecture.model_type,
        "dtype": "bfloat16",
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden,
        "intermediate_size": metadata.integer(own("feed_forward_length")),
        "num_hidden_layers": metadata.integer(own("block_count")),
        "num_attention_heads": heads,
        "num_key_value_heads": metadata.integer(own("attention.head_count_kv"), heads, least=1),
        "head_dim": head_dim,
        "max_position_embeddings": metadata.integer(own("context_length")),
        "rms_norm_eps": metadata.number(own("attention.layer_norm_rms_epsilon")),
        "rope_parameters": _rotations(header, architecture, head_dim),
        "tie_word_embeddings": "output.weight" not in header.tensors,
        "attention_bias": "blk.0.attn_q.bias" in header.tensors,
        "mlp_bias": "blk.0.ffn_up.bias" in header.tensors,
        **_token_ids(header),
        **architecture.settings(metadata, own),
    }


def generation_config(header: Header) -> dict[str, Any]:
    """``generation_config.json``: what a text begins with, and all that ends one."""
    metadata, ids = header.metadata, _token_ids(header)
    keys = [f"tokenizer.ggml.{name}_token_id" for name in ("eos", "eot", "eom")]
    ends = [metadata.token(key) for key in keys if key in metadata]
    tokens = metadata.texts("tokenizer.ggml.tokens")
    ends += [tokens.index(token) for token in sorted(_TURN_ENDS.intersection(tokens))]
    ends = list(dict.fromkeys(ends))
    return {**ids, **({"eos_token_id": ends[0] if len(ends) == 1 else ends} if ends else {})}


def _token_ids(header: Header) -> dict[str, int]:
    keys = {"bos": "bos", "eos": "eos", "pad": "padding"}
    found = {}
    for name, key in keys.items():
        place = f"tokenizer.ggml.{key}_token_id"
        if place in header.metadata:
            found[f"{name}_token_id"] = header.metadata.token(place)
    return found


def _rotations(header: Header, architecture: Architecture, head_dim: int) -> dict[str, Any]:
    """``rope_parameters``: one, or one by kind of layer."""
    metadata, prefix = header.metadata, f"{header.metadata.text('general.architecture')}.rope"
    whole = _rotation(header, prefix)
    width = metadata.integer(f"{prefix}.dimension_count", head_dim, least=1)
    if width != head_dim:
        whole["partial_rotary_factor"] = width / head_dim
    if architecture.local_theta is None:
        return whole
    local = metadata.number(f"{prefix}.freq_base_swa", architecture.local_theta)
    return {
        "full_attention": whole,
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }


def _rotation(header: Header, prefix: str) -> dict[str, Any]:
    metadata = header.metadata
    theta = {"rope_theta": metadata.number(f"{prefix}.freq_base", 10000.0)}
    kind = metadata.text(f"{prefix}.scaling.type", "none")
    trained = f"{prefix}.scaling.original_context_length"
    if SHORT_FACTORS in header.tensors:
        attention = f"{prefix}.scaling.attn_factor"
        return {
            "rope_type": "longrope",
            **theta,
            **({"attention_factor": metadata.number(attention)} if attention in metadata else {}),
            "short_factor": _factors(header, SHORT_FACTORS).tolist(),
            "long_factor": _factors(header, LONG_FACTORS).tolist(),
            "original_max_position_embeddings": metadata.integer(trained),
        }
    if LLAMA3_FACTORS in header.tensors:
        return {**_llama3(header, theta["rope_theta"]), **theta}
    if kind == "none":
        return {"rope_type": "default", **theta}
    if kind not in ("linear", "yarn"):
        raise UnsupportedGguf(metadata.path, f"rotary scaling {kind}")
    factor = metadata.number(f"{prefix}.scaling.factor")
    scaled = {"rope_type": kind, **theta, "factor": factor}
    if kind == "yarn":
        scaled["original_max_position_embeddings"] = metadata.integer(trained)
    return scaled


def _factors(header: Header, name: str) -> NDArray[np.float32]:
    tensor = header.tensors.get(name)
    if tensor is None or len(tensor.shape) != 1 or tensor.shape[0] > _MOST_FACTORS:
        raise UnreadableGguf(header.metadata.path, f"{name} is no list of rotary factors")
    factors: NDArray[np.float32] = dequantize(tensor.read_rows(0, 1), tensor.type)[0]
    if not np.isfinite(factors).all():
        raise UnreadableGguf(header.metadata.path, f"{name} holds NaN or infinity")
    return factors


def _llama3(header: Header, theta: float) -> dict[str, Any]:
    """The settings whose factors the file holds, found again by computing them."""
    found = _factors(header, LLAMA3_FACTORS)
    factor = float(f"{found.max():.6g}")
    width = 2 * len(found)
    turns = 8192 / (2 * pi) * theta ** -(np.arange(0, width, 2) / width)
    kept = np.clip((turns - 1.0) / (4.0 - 1.0), 0, 1)
    expected = 1 / ((1 - kept) / factor + kept)
    if not np.allclose(found, expected, rtol=1e-4):
        raise UnsupportedGguf(header.metadata.path, "a rotary scaling that is not Llama 3's own")
    return {**_LLAMA3, "factor": factor}
