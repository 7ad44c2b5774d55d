"""GGUF's architectures, as data: whose tensors and keys are what in transformers.

llama.cpp's own tables are gguf-py/gguf/constants.py (names) and src/llama-model.cpp (what
its code assumes where no key says it: Gemma's windows, SmolLM3's unrotated layers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from exporter.checkpoint.gguf.metadata import Metadata

#: No list is made for more; :class:`exporter.checkpoint.config.DecoderConfig` refuses it.
MOST_LAYERS = 1 << 11

GLOBAL = MappingProxyType(
    {
        "token_embd": "model.embed_tokens",
        "output_norm": "model.norm",
        "output": "lm_head",
    }
)
_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_HEAD_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_LLAMA = {**_ATTENTION, **_MLP, "ffn_norm": "post_attention_layernorm"}
_GEMMA = {
    **_ATTENTION,
    **_MLP,
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_PHI3 = {
    "attn_norm": "input_layernorm",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_up": "mlp.gate_up_proj",
    "ffn_down": "mlp.down_proj",
}

#: Extra keys of config.json; ``own`` prefixes a key with the architecture's name.
Settings = Callable[[Metadata, Callable[[str], str]], dict[str, Any]]


def _none(_: Metadata, __: Callable[[str], str]) -> dict[str, Any]:
    return {}


def _scores(metadata: Metadata, own: Callable[[str], str], largest: int) -> dict[str, Any]:
    """Gemma's scale of the scores: only its largest model's is not the head's width."""
    if metadata.integer(own("block_count")) != largest:
        return {"query_pre_attn_scalar": metadata.integer(own("attention.key_length"))}
    heads = metadata.integer(own("attention.head_count"), least=1)
    return {"query_pre_attn_scalar": metadata.integer(own("embedding_length")) // heads}


def _windows(metadata: Metadata, own: Callable[[str], str], period: int) -> dict[str, Any]:
    """Every layer has a window but each ``period``-th."""
    layers = min(metadata.integer(own("block_count")), MOST_LAYERS)
    return {
        "sliding_window": metadata.integer(own("attention.sliding_window")),
        "layer_types": [
            "sliding_attention" if (layer + 1) % period else "full_attention"
            for layer in range(layers)
        ],
        "hidden_activation": "gelu_pytorch_tanh",
    }


def _gemma2(metadata: Metadata, own: Callable[[str], str]) -> dict[str, Any]:
    return {
        **_scores(metadata, own, largest=46),
        **_windows(metadata, own, period=2),
        "attn_logit_softcapping": metadata.number(own("attn_logit_softcapping"), 50.0),
        "final_logit_softcapping": metadata.number(own("final_logit_softcapping"), 30.0),
    }


def _gemma3(metadata: Metadata, own: Callable[[str], str]) -> dict[str, Any]:
    period = metadata.integer(own("attention.sliding_window_pattern"), 6, least=1)
    return {
        **_scores(metadata, own, largest=62),
        **_windows(metadata, own, period),
        "attn_logit_softcapping": None,
        "final_logit_softcapping": None,
    }


def _phi3(metadata: Metadata, own: Callable[[str], str]) -> dict[str, Any]:
    context = metadata.integer(own("context_length"))
    trained = own("rope.scaling.original_context_length")
    return {
        "sliding_window": metadata.integer(own("attention.sliding_window"), 0) or None,
        "original_max_position_embeddings": metadata.integer(trained, context),
    }


def _smollm3(metadata: Metadata, own: Callable[[str], str]) -> dict[str, Any]:
    layers = range(min(metadata.integer(own("block_count")), MOST_LAYERS))
    return {
        "no_rope_layers": [int((layer + 1) % 4 != 0) for layer in layers],
        "layer_types": ["full_attention" for _ in layers],
        "use_sliding_window": False,
    }


@dataclass(frozen=True)
class Architecture:
    """What a GGUF of this architecture is in transformers.

    Attributes:
        parts: a layer's tensors, and the modules that they are the weights or biases of.
        interleaved: rows of q and k lie as llama.cpp's rotation wants them.
        offset_norms: norms are kept as 1 + weight.
        local_theta: rotary base of layers with a window, where it is another.
        settings: what config.json says besides the sizes.
    """

    model_type: str
    causal_lm: str
    parts: Mapping[str, str]
    interleaved: bool = False
    offset_norms: bool = False
    local_theta: float | None = None
    settings: Settings = _none


#: By ``general.architecture``.
ARCHITECTURES: MappingProxyType[str, Architecture] = MappingProxyType(
    {
        "gemma2": Architecture(
            "gemma2", "Gemma2ForCausalLM", _GEMMA, offset_norms=True, settings=_gemma2
        ),
        "gemma3": Architecture(
            "gemma3_text",
            "Gemma3ForCausalLM",
            {**_GEMMA, **_HEAD_NORMS},
            offset_norms=True,
            local_theta=10000.0,
            settings=_gemma3,
        ),
        "llama": Architecture("llama", "LlamaForCausalLM", _LLAMA, interleaved=True),
        "phi3": Architecture("phi3", "Phi3ForCausalLM", _PHI3, settings=_phi3),
        "qwen2": Architecture("qwen2", "Qwen2ForCausalLM", _LLAMA),
        "qwen3": Architecture("qwen3", "Qwen3ForCausalLM", {**_LLAMA, **_HEAD_NORMS}),
        "smollm3": Architecture(
            "smollm3", "SmolLM3ForCausalLM", _LLAMA, interleaved=True, settings=_smollm3
        ),
    }
)
