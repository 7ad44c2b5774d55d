"""Recipes for llm-compressor, by name: data that its own recipe format understands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from exporter.compress.errors import UnknownRecipe


@dataclass(frozen=True)
class Recipe:
    """How to compress a checkpoint.

    Attributes:
        group_size: inputs that share a scale, which must divide every linear's
            width; ``None`` for one scale per output channel.
        modifiers: llm-compressor's modifiers, by class name, with their arguments.
    """

    name: str
    summary: str
    group_size: int | None
    modifiers: Mapping[str, Mapping[str, Any]]

    def document(self) -> dict[str, Any]:
        """The recipe in llm-compressor's form."""
        modifiers = {name: dict(arguments) for name, arguments in self.modifiers.items()}
        return {"tabwright_stage": {"tabwright_modifiers": modifiers}}


def _round_to_nearest(bits: int, *, symmetric: bool, group_size: int | None) -> dict[str, Any]:
    """Weights only; the head stays in floats, as compressors leave it."""
    grouping = (
        {"strategy": "channel"}
        if group_size is None
        else {"strategy": "group", "group_size": group_size}
    )
    weights = {"num_bits": bits, "type": "int", "symmetric": symmetric, **grouping}
    groups = {"linears": {"targets": ["Linear"], "weights": weights}}
    return {"QuantizationModifier": {"ignore": ["lm_head"], "config_groups": groups}}


RECIPES: MappingProxyType[str, Recipe] = MappingProxyType(
    {
        recipe.name: recipe
        for recipe in (
            Recipe(
                name="w4a16-rtn-g32",
                summary="4-bit weights in groups of 32, symmetric, rounded to nearest",
                group_size=32,
                modifiers=_round_to_nearest(4, symmetric=True, group_size=32),
            ),
            Recipe(
                name="w4a16-rtn-g64",
                summary="4-bit weights in groups of 64, symmetric, rounded to nearest",
                group_size=64,
                modifiers=_round_to_nearest(4, symmetric=True, group_size=64),
            ),
            Recipe(
                name="w4a16-rtn-g32-asymmetric",
                summary="4-bit weights in groups of 32 with zero points, rounded to nearest",
                group_size=32,
                modifiers=_round_to_nearest(4, symmetric=False, group_size=32),
            ),
            Recipe(
                name="w8a16-rtn-channel",
                summary="8-bit weights, one scale per output channel, rounded to nearest",
                group_size=None,
                modifiers=_round_to_nearest(8, symmetric=True, group_size=None),
            ),
            Recipe(
                name="w8a16-rtn-g32",
                summary="8-bit weights in groups of 32, symmetric, rounded to nearest",
                group_size=32,
                modifiers=_round_to_nearest(8, symmetric=True, group_size=32),
            ),
        )
    }
)


def find_recipe(name: str) -> Recipe:
    """Look a recipe up.

    Raises:
        UnknownRecipe: it is not in :data:`RECIPES`.
    """
    if name not in RECIPES:
        raise UnknownRecipe(name, RECIPES)
    return RECIPES[name]
