"""A decoder's settings, read off the config that transformers made of ``config.json``.

transformers fills in each family's defaults and turns older spellings into new ones;
mobius hands the result to :meth:`DecoderSettings.from_transformers`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import mobius

from exporter.graph.families import FAMILIES, Family
from exporter.graph.rotary import Rotary

#: The key that carries the graph's length beside the model's own.
CONTEXT_KEY = "tabwright_context_length"
#: LFM2 has 3.
_MOST_TAPS = 64
_SLIDING, _CONVOLUTION = "sliding_attention", "conv"


@dataclass(frozen=True)
class Layer:
    """What attention does in one layer.

    Attributes:
        window: positions it attends to, itself included; None for all.
        rotary: key into :attr:`DecoderSettings.rotaries`; None for no rotation.
    """

    window: int | None
    rotary: str | None


@dataclass(frozen=True)
class Convolution:
    """What a short convolution does in a layer, in attention's place.

    Attributes:
        taps: positions that it reaches, the new one included.
        bias: its filter and its projections have biases.
    """

    taps: int
    bias: bool

    def __post_init__(self) -> None:
        """Refuse what no filter has.

        Raises:
            ValueError: it reaches no other position, or too many for a state.
        """
        if not 2 <= self.taps <= _MOST_TAPS:
            raise ValueError(f"a convolution over {self.taps} positions")


@dataclass
class DecoderSettings(mobius.CausalLMConfig):  # type: ignore[misc]
    """mobius's config, and what our decoder needs besides."""

    family: Family = field(default_factory=Family)
    layers: tuple[Layer | Convolution, ...] = ()
    rotaries: dict[str, Rotary] = field(default_factory=dict)
    context_length: int = 0
    attention_scale: float = 1.0
    attention_cap: float | None = None
    logits_cap: float | None = None
    output_bias: bool = False

    @classmethod
    def from_transformers(cls, config: Any, parent_config: Any = None) -> DecoderSettings:
        """Read ``config``.

        Raises:
            ValueError: attention is not causal, or a layer's kind is not known.
        """
        if getattr(config, "use_bidirectional_attention", False):
            raise ValueError("attention looks forward as well: an encoder, no decoder")
        base = super().from_transformers(config, parent_config)
        family = FAMILIES[config.model_type]
        rotaries = _rotaries(config, base.head_dim)
        bias = bool(getattr(config, "attention_bias", False))
        width = config.query_pre_attn_scalar if family.scaled_scores else base.head_dim
        settings: DecoderSettings = dataclasses.replace(
            base,
            family=family,
            layers=_layers(config, family, rotaries),
            rotaries=rotaries,
            context_length=getattr(config, CONTEXT_KEY),
            attention_scale=width**-0.5,
            attention_cap=config.attn_logit_softcapping if family.capped_scores else None,
            logits_cap=config.final_logit_softcapping if family.capped_logits else None,
            attn_qkv_bias=bias or family.query_key_value_bias,
            output_bias=bias and not family.query_key_value_bias,
            mlp_bias=bool(getattr(config, "mlp_bias", False)),
            intermediate_size=_mlp_width(config) if family.adjusted_mlp else base.intermediate_size,
            # Where a config has both, its class obeys the first.
            hidden_act=getattr(config, "hidden_activation", None)
            or family.activation
            or config.hidden_act,
        )
        return settings


def _rotaries(config: Any, head_dim: int) -> dict[str, Rotary]:
    """By layer type where a family rotates its layers differently, else one for all."""
    parameters = config.rope_parameters
    kinds = {"all": parameters} if "rope_type" in parameters else parameters
    return {
        kind: Rotary(
            given,
            min(int(head_dim * given.get("partial_rotary_factor", 1.0)), head_dim),
            config.max_position_embeddings,
        )
        for kind, given in kinds.items()
    }


def _mlp_width(config: Any) -> int:
    """``intermediate_size`` as Lfm2MLP adjusts it: two thirds, scaled, rounded up."""
    width = int(config.intermediate_size)
    if not config.block_auto_adjust_ff_dim:
        return width
    width = int(2 * width / 3)
    if config.block_ffn_dim_multiplier is None:
        return width
    multiple = int(config.block_multiple_of)
    return multiple * -(-int(config.block_ffn_dim_multiplier * width) // multiple)


def _layers(
    config: Any, family: Family, rotaries: dict[str, Rotary]
) -> tuple[Layer | Convolution, ...]:
    count = config.num_hidden_layers
    window = getattr(config, "sliding_window", None)
    default = _SLIDING if family.windows == "all" and window else "full_attention"
    kinds = [default] * count
    if family.windows == "by layer type":
        kinds = list(config.layer_types)
    known = {_SLIDING, "full_attention"} | ({_CONVOLUTION} if family.short_convolutions else set())
    unknown = set(kinds) - known
    if unknown or len(kinds) != count:
        raise ValueError(f"layer_types names {sorted(unknown)} in {len(kinds)} of {count} layers")
    if _SLIDING in kinds and not (isinstance(window, int) and 0 < window < 1 << 31):
        raise ValueError(f"a sliding window of {window} positions")
    rotated = config.no_rope_layers if family.unrotated_layers else [1] * count
    return tuple(
        Convolution(config.conv_L_cache, config.conv_bias)
        if kind == _CONVOLUTION
        else Layer(
            window=window if kind == _SLIDING else None,
            rotary=(kind if kind in rotaries else "all") if rotated[index] else None,
        )
        for index, kind in enumerate(kinds)
    )
