"""The families, as data: what transformers' code for a model type does.

Sizes, windows' lengths, rotary settings and soft caps are read off each config; what is
here stands in no config.  A family is added when its tests in
``tests/exporter/test_families.py`` pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

#: Which layers attend to the last ``sliding_window`` positions only.
Windows = Literal["none", "all", "by layer type"]


@dataclass(frozen=True)
class Family:
    """How a decoder differs from Llama's.

    Attributes:
        windows: which layers have a sliding window; ``by layer type`` asks the config's
            ``layer_types``.
        query_key_value_bias: those three have biases whatever ``attention_bias`` says,
            and the output projection has none.
        query_key_norms: queries and keys are normalised per head before they are rotated.
        offset_norms: norms multiply by 1 + weight.
        sandwich_norms: the outputs of attention and MLP are normalised too.
        scaled_embedding: token embeddings are multiplied by sqrt(hidden_size).
        scaled_scores: ``query_pre_attn_scalar`` scales the scores in ``head_dim``'s place.
        capped_scores: ``attn_logit_softcapping`` is obeyed.
        capped_logits: ``final_logit_softcapping`` is obeyed.
        unrotated_layers: ``no_rope_layers`` is obeyed, 0 standing for no rotation.
        fused_projections: one ``qkv_proj`` and one ``gate_up_proj``; the graph keeps
            them whole, so that a checkpoint's codes need no splitting.
        short_convolutions: layers that ``layer_types`` calls ``conv`` have one in
            attention's place.
        adjusted_mlp: ``block_auto_adjust_ff_dim`` and its like are obeyed.
        activation: the MLP's, where it is no setting.
        names: what its modules are called, by what Llama's are.
    """

    windows: Windows = "none"
    query_key_value_bias: bool = False
    query_key_norms: bool = False
    offset_norms: bool = False
    sandwich_norms: bool = False
    scaled_embedding: bool = False
    scaled_scores: bool = False
    capped_scores: bool = False
    capped_logits: bool = False
    unrotated_layers: bool = False
    fused_projections: bool = False
    short_convolutions: bool = False
    adjusted_mlp: bool = False
    activation: str | None = None
    names: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    def rename(self, parameter: str) -> str:
        """The name that the family's checkpoints have for ``parameter``."""
        for ours, theirs in self.names.items():
            parameter = f".{parameter}".replace(f".{ours}.", f".{theirs}.")[1:]
        return parameter


#: By ``model_type``.
FAMILIES: MappingProxyType[str, Family] = MappingProxyType(
    {
        "gemma2": Family(
            windows="by layer type",
            offset_norms=True,
            sandwich_norms=True,
            scaled_embedding=True,
            scaled_scores=True,
            capped_scores=True,
            capped_logits=True,
        ),
        "gemma3_text": Family(
            windows="by layer type",
            query_key_norms=True,
            offset_norms=True,
            sandwich_norms=True,
            scaled_embedding=True,
            scaled_scores=True,
            capped_logits=True,
        ),
        "lfm2": Family(
            windows="by layer type",
            query_key_norms=True,
            short_convolutions=True,
            adjusted_mlp=True,
            activation="silu",
            names=MappingProxyType(
                {
                    "self_attn.o_proj": "self_attn.out_proj",
                    "self_attn.q_norm": "self_attn.q_layernorm",
                    "self_attn.k_norm": "self_attn.k_layernorm",
                    "mlp.gate_proj": "feed_forward.w1",
                    "mlp.up_proj": "feed_forward.w3",
                    "mlp.down_proj": "feed_forward.w2",
                    "input_layernorm": "operator_norm",
                    "post_attention_layernorm": "ffn_norm",
                    "model.norm": "model.embedding_norm",
                }
            ),
        ),
        "llama": Family(),
        "mistral": Family(windows="all"),
        "phi3": Family(windows="all", fused_projections=True),
        "qwen2": Family(windows="by layer type", query_key_value_bias=True),
        "qwen3": Family(windows="by layer type", query_key_norms=True),
        "smollm3": Family(windows="by layer type", unrotated_layers=True),
    }
)
