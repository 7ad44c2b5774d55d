"""Rotary embedding tables, by transformers' ``rope_parameters``.

mobius has tables of its own, but they follow the graph's length instead of the model's
where a scaling depends on it, and leave ``attention_factor`` and ``truncate`` unread.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
#: Far above a model for a browser: 128 Ki positions of heads 256 wide take 128 MiB.
_MAX_TABLE_BYTES = 256 << 20


@dataclass(frozen=True)
class Rotary:
    """One kind of rotation.

    Attributes:
        parameters: ``rope_type``, ``rope_theta`` and what the type needs.
        width: values of a head that are rotated, in pairs (i, i + width / 2).
        trained_length: the model's own ``max_position_embeddings``.
    """

    parameters: Mapping[str, Any]
    width: int
    trained_length: int

    def __post_init__(self) -> None:
        """Refuse what no head can have.

        Raises:
            ValueError: ``width`` is odd or not positive, or the type is not known.
        """
        if self.width < 2 or self.width % 2:
            raise ValueError(f"a rotation of {self.width} values, which make no pairs")
        if self.parameters.get("rope_type") not in SCALINGS:
            kind = self.parameters.get("rope_type")
            raise ValueError(f"rotary scaling {kind!r}; known: {', '.join(SCALINGS)}")

    def reach(self, length: int) -> int:
        """How many of ``length`` positions one table is right for.

        longrope changes to other factors once a text is longer than
        ``original_max_position_embeddings``, for positions before that too; a KV cache
        cannot follow, so its graphs end there.
        """
        if self.parameters["rope_type"] != "longrope":
            return length
        return min(length, int(self.parameters["original_max_position_embeddings"]))

    def tables(self, length: int) -> tuple[Floats, Floats]:
        """Cosines and sines, each float32 [positions, width / 2].

        Raises:
            KeyError, TypeError, ValueError: parameters that are missing or make no sense.
        """
        count = self.reach(length)
        if count < 1 or count * self.width * 4 > _MAX_TABLE_BYTES:
            raise ValueError(f"rotary tables of {count} positions by {self.width} values")
        # What a strange setting makes of them is looked at below.
        with np.errstate(all="ignore"):
            inverse, factor = SCALINGS[self.parameters["rope_type"]](self)
            # In float32 as transformers does it: at long positions the rounding shows.
            positions = np.arange(count, dtype=np.float32)
            angles = np.outer(positions, inverse.astype(np.float32)).astype(np.float32)
            cosines, sines = (
                function(angles) * np.float32(factor) for function in (np.cos, np.sin)
            )
        if not np.isfinite(cosines).all() or cosines.shape[1] * 2 != self.width:
            raise ValueError("rope_parameters lead to no rotation")
        return cosines, sines


Scaling = Callable[[Rotary], tuple[Floats, float]]


def _wavelengths(rotary: Rotary) -> Floats:
    """Radians' reciprocal: theta ** (2i / width), float32 [width / 2]."""
    exponents = np.arange(0, rotary.width, 2, dtype=np.float32) / np.float32(rotary.width)
    return np.float32(rotary.parameters["rope_theta"]) ** exponents


def _default(rotary: Rotary) -> tuple[Floats, float]:
    return np.float32(1) / _wavelengths(rotary), 1.0


def _linear(rotary: Rotary) -> tuple[Floats, float]:
    inverse, factor = _default(rotary)
    return inverse / np.float32(rotary.parameters["factor"]), factor


def _llama3(rotary: Rotary) -> tuple[Floats, float]:
    """Long wavelengths are stretched, short ones kept, those between interpolated."""
    p = rotary.parameters
    inverse, factor = _default(rotary)
    low, high = p["low_freq_factor"], p["high_freq_factor"]
    turns = p["original_max_position_embeddings"] * inverse / (2 * math.pi)
    kept = np.clip((turns - low) / (high - low), 0, 1).astype(np.float32)
    return (1 - kept) * inverse / np.float32(p["factor"]) + kept * inverse, factor


def _yarn(rotary: Rotary) -> tuple[Floats, float]:
    """YaRN, https://arxiv.org/abs/2309.00071."""
    p = rotary.parameters
    trained = p["original_max_position_embeddings"]
    stretch = p.get("factor") or rotary.trained_length / trained

    def dimension(rotations: float) -> float:
        span = math.log(trained / (rotations * 2 * math.pi))
        return rotary.width * span / (2 * math.log(p["rope_theta"]))

    low, high = dimension(p.get("beta_fast") or 32), dimension(p.get("beta_slow") or 1)
    if p.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, rotary.width - 1)
    if low == high:
        high += 0.001
    inverse, _ = _default(rotary)
    ramp = (np.arange(rotary.width // 2, dtype=np.float32) - low) / (high - low)
    stretched = np.clip(ramp, 0, 1).astype(np.float32)
    mixed = inverse / np.float32(stretch) * stretched + inverse * (1 - stretched)
    return mixed, p.get("attention_factor") or _yarn_attention(p, stretch)


def _yarn_attention(parameters: Mapping[str, Any], stretch: float) -> float:
    def magnitude(weight: float) -> float:
        return 0.1 * weight * math.log(stretch) + 1 if stretch > 1 else 1.0

    one, other = parameters.get("mscale"), parameters.get("mscale_all_dim")
    return magnitude(one) / magnitude(other) if one and other else magnitude(1.0)


def _longrope(rotary: Rotary) -> tuple[Floats, float]:
    """LongRoPE, https://arxiv.org/abs/2402.13753, for texts of the original length."""
    p = rotary.parameters
    trained = p["original_max_position_embeddings"]
    stretch = p.get("factor") or rotary.trained_length / trained
    attention = p.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(stretch) / math.log(trained)) if stretch > 1 else 1.0
    factors = np.asarray(p["short_factor"], np.float32)
    return np.float32(1) / (factors * _wavelengths(rotary)), attention


#: By ``rope_type``: inverse frequencies, and what cosines and sines are multiplied with.
SCALINGS: MappingProxyType[str, Scaling] = MappingProxyType(
    {
        "default": _default,
        "linear": _linear,
        "llama3": _llama3,
        "longrope": _longrope,
        "yarn": _yarn,
    }
)
