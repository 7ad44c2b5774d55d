"""Tiny random checkpoints of every family, written by transformers.

Sizes are odd on purpose: heads that do not make up the hidden size, windows shorter than
the test's text, norms and biases that are not what they are initialised to.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tests.checkpoints import VARIANTS, save_compressed, write_tokenizer

WINDOW = 16
PLAIN = "bf16"
_SHARED: MappingProxyType[str, Any] = MappingProxyType(
    {
        "vocab_size": 512,
        "hidden_size": 128,
        "intermediate_size": 192,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        # About 1 / sqrt(hidden_size): signals keep their size from layer to layer.
        "initializer_range": 0.08,
    }
)


@dataclass(frozen=True)
class Tiny:
    """A checkpoint to write.

    Attributes:
        settings: of its config; ``_SHARED`` has the rest.
        scheme: the variant in :data:`tests.checkpoints.VARIANTS` whose compression it
            gets.
    """

    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)
    scheme: str = PLAIN


def _rotary(kind: str, **parameters: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **parameters}}


_GEMMA = {
    "num_hidden_layers": 4,
    "head_dim": 64,
    "sliding_window": WINDOW,
    # Not head_dim: the scale of the scores is a setting of its own.
    "query_pre_attn_scalar": 96,
    "tie_word_embeddings": True,
}
_GEMMA2 = {**_GEMMA, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 6.0}
_GEMMA3 = {
    **_GEMMA,
    "sliding_window_pattern": 3,
    "rope_parameters": {
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
        "full_attention": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    },
}
_LFM2 = {
    "num_hidden_layers": 4,
    "layer_types": ["conv", "full_attention", "conv", "conv"],
    "tie_word_embeddings": True,
    # Two thirds of 288, scaled and rounded up to 224.
    "intermediate_size": 288,
    "block_ffn_dim_multiplier": 1.1,
    "block_multiple_of": 32,
}
_QWEN3 = {"head_dim": 64, "tie_word_embeddings": True}
_SMOLLM3 = {
    "num_hidden_layers": 4,
    "no_rope_layer_interval": 2,
    "use_sliding_window": True,
    "sliding_window": WINDOW,
}
_MISTRAL = {"sliding_window": WINDOW, "head_dim": 48}
_PHI3 = {"sliding_window": WINDOW}

FAMILY_CASES: MappingProxyType[str, Tiny] = MappingProxyType(
    {
        # ALLaM's and AceGPT's shape: as many key heads as heads, an untied head.
        "llama-mha": Tiny("llama", {"num_key_value_heads": 4, "vocab_size": 640}),
        "llama-mha-w4a16": Tiny(
            "llama", {"num_key_value_heads": 4, "vocab_size": 640}, scheme="w4a16-g32"
        ),
        "llama-biases": Tiny("llama", {"attention_bias": True, "mlp_bias": True}),
        "llama-biases-w4a16": Tiny(
            "llama", {"attention_bias": True, "mlp_bias": True}, scheme="w4a16-g32"
        ),
        "llama-llama3": Tiny(
            "llama",
            _rotary(
                "llama3",
                factor=8.0,
                low_freq_factor=1.0,
                high_freq_factor=4.0,
                original_max_position_embeddings=64,
            ),
        ),
        "llama-linear": Tiny("llama", _rotary("linear", factor=4.0)),
        "llama-yarn": Tiny(
            "llama", _rotary("yarn", factor=4.0, original_max_position_embeddings=64)
        ),
        "lfm2": Tiny("lfm2", _LFM2),
        "lfm2-w4a16": Tiny("lfm2", _LFM2, scheme="w4a16-g32"),
        "lfm2-biases": Tiny(
            "lfm2",
            {**_LFM2, "conv_bias": True, "conv_L_cache": 4, "block_auto_adjust_ff_dim": False},
        ),
        "mistral": Tiny("mistral", _MISTRAL),
        "mistral-w4a16": Tiny("mistral", _MISTRAL, scheme="w4a16-g32"),
        "mistral-no-window": Tiny("mistral", {"sliding_window": None}),
        "qwen2": Tiny("qwen2", {"tie_word_embeddings": True}),
        "qwen2-w4a16": Tiny("qwen2", {"tie_word_embeddings": True}, scheme="w4a16-g32"),
        "qwen2-some-windows": Tiny(
            "qwen2",
            {
                "num_hidden_layers": 3,
                "use_sliding_window": True,
                "sliding_window": WINDOW,
                "max_window_layers": 1,
            },
        ),
        "qwen3": Tiny("qwen3", _QWEN3),
        "qwen3-w4a16": Tiny("qwen3", _QWEN3, scheme="w4a16-g32"),
        "gemma2": Tiny("gemma2", _GEMMA2),
        "gemma2-w4a16": Tiny("gemma2", _GEMMA2, scheme="w4a16-g32"),
        "gemma3_text": Tiny("gemma3_text", _GEMMA3),
        "gemma3_text-w4a16": Tiny("gemma3_text", _GEMMA3, scheme="w4a16-g32"),
        "phi3": Tiny("phi3", _PHI3),
        "phi3-w4a16": Tiny("phi3", _PHI3, scheme="w4a16-g32"),
        "phi3-longrope": Tiny(
            "phi3",
            {
                **_PHI3,
                "original_max_position_embeddings": 128,
                **_rotary(
                    "longrope",
                    original_max_position_embeddings=128,
                    short_factor=[1.0 + i / 8 for i in range(16)],
                    long_factor=[2.0 + i for i in range(16)],
                ),
            },
        ),
        "phi3-partial": Tiny("phi3", {**_PHI3, "partial_rotary_factor": 0.5}),
        "smollm3": Tiny("smollm3", _SMOLLM3),
        "smollm3-w4a16": Tiny("smollm3", _SMOLLM3, scheme="w4a16-g32"),
    }
)


#: Those that tests/browser/test_families.py runs: together they have every kernel.
IN_BROWSER = ("gemma2", "gemma3_text", "lfm2", "phi3-partial", "qwen2", "smollm3")
#: Sizes for a software GPU.
_NARROW: MappingProxyType[str, Any] = MappingProxyType(
    {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
    }
)
NARROW_WINDOW = 4


def narrowed(tiny: Tiny) -> Tiny:
    """``tiny`` with the same layers, as little as a model can have."""
    settings = {**tiny.settings, **_NARROW}
    if settings.get("sliding_window"):
        settings["sliding_window"] = NARROW_WINDOW
    return replace(tiny, settings=settings)


def write_family(tiny: Tiny, folder: Path) -> Path:
    """Write ``tiny`` into ``folder`` and return it."""
    from exporter.reference.quiet import quiet_libraries

    with quiet_libraries():
        _write_model(tiny, folder)
        write_tokenizer(folder)
    return folder


def _write_model(tiny: Tiny, folder: Path) -> None:
    import torch
    import transformers

    untyped: Any = transformers
    settings = {**_SHARED, "tie_word_embeddings": False, **tiny.settings}
    config = untyped.AutoConfig.for_model(tiny.model_type, **settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(20)
        model = untyped.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        # Norms of one and biases of zero would hide that they are left out.
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data += 0.2 * torch.randn_like(parameter)
    # The most likely token is to stand clear of the second.
    model.get_output_embeddings().weight.data *= 4
    model = model.to(torch.bfloat16)
    model.generation_config = untyped.GenerationConfig(
        bos_token_id=1, eos_token_id=2, pad_token_id=0
    )
    save_compressed(model, VARIANTS[tiny.scheme], folder)
