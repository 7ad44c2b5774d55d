"""The methods of compression by name, what they take, and which follow which.

A method is data for the library that does the work; nothing here imports one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from exporter.compress.errors import BadChain, OptionsContradict, OptionUnused, UnknownMethod

#: Inputs that share a 4-bit scale unless told otherwise: the largest that divides every
#: linear's width.
GROUP_SIZES = (128, 64, 32)

_PRUNING = frozenset({"sparsity", "mask_structure", "sparsity_profile"})
_CALIBRATION = frozenset({"calibration", "samples", "sequence_length", "seed"})
_GROUPS = frozenset({"group_size"})


@dataclass(frozen=True)
class Settings:
    """What a chain of methods is told.

    Attributes:
        sparsity: share of a linear's weights that become zero.
        mask_structure: ``2:4`` zeroes two of every four neighbours along K; ``0:0`` lets
            zeros fall anywhere.
        sparsity_profile: ``owl`` prunes layers with many outliers less (OWL,
            https://arxiv.org/abs/2310.05175), ``uniform`` all alike.
        group_size: inputs that share a 4-bit scale; ``None`` for the largest of
            :data:`GROUP_SIZES` that fits.
        calibration: text to calibrate with; ``None`` for the set in the package.
        samples: calibration samples, each of at most ``sequence_length`` tokens.
        seed: decides which samples are drawn.
    """

    sparsity: float = 0.5
    mask_structure: Literal["0:0", "2:4"] = "0:0"
    sparsity_profile: Literal["uniform", "owl"] = "uniform"
    group_size: int | None = None
    calibration: Path | None = None
    samples: int = 128
    sequence_length: int = 512
    seed: int = 0


@dataclass(frozen=True)
class Modifier:
    """One of llm-compressor's modifiers, by class name, with its arguments."""

    name: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class LlmCompressor:
    """Work for llm-compressor: its modifiers in order, given the group size that was chosen.

    ``is_grouped``: scales belong to groups of inputs, so a group size is chosen.
    """

    modifiers: Callable[[Settings, int | None], tuple[Modifier, ...]]
    is_grouped: bool = False


@dataclass(frozen=True)
class BitsAndBytes:
    """Work for bitsandbytes: the arguments of transformers' BitsAndBytesConfig."""

    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A way to compress.

    Attributes:
        prunes: it makes zeros; the others make codes, and keep the zeros they find.
        options: fields of :class:`Settings` that it heeds.
    """

    name: str
    summary: str
    prunes: bool
    work: LlmCompressor | BitsAndBytes
    options: frozenset[str] = frozenset()

    @property
    def is_calibrated(self) -> bool:
        """Whether it needs text."""
        return bool(self.options & _CALIBRATION)


def _in_groups(modifier: str) -> LlmCompressor:
    """4-bit weights whose scales belong to groups of inputs."""
    return LlmCompressor(
        lambda _, size: (_integers(modifier, 4, strategy="group", group_size=size),),
        is_grouped=True,
    )


def _per_channel(modifier: str) -> LlmCompressor:
    """8-bit weights; the preset of that name has groups of 128, which not every width allows."""
    return LlmCompressor(lambda *_: (_integers(modifier, 8, strategy="channel"),))


def _integers(modifier: str, bits: int, **grouping: Any) -> Modifier:
    weights = {"num_bits": bits, "type": "int", "symmetric": True, **grouping}
    linears = {"targets": ["Linear"], "weights": weights}
    return _on_linears(modifier, config_groups={"linears": linears})


def _scheme(modifier: str, scheme: str, *before: Modifier) -> LlmCompressor:
    """One of compressed-tensors' preset schemes, for every linear but the head."""
    return LlmCompressor(lambda *_: (*before, _on_linears(modifier, scheme=scheme)))


def _on_linears(modifier: str, **arguments: Any) -> Modifier:
    return Modifier(modifier, {"targets": ["Linear"], "ignore": ["re:.*lm_head"], **arguments})


def _prune(modifier: str) -> LlmCompressor:
    def modifiers(settings: Settings, _: int | None) -> tuple[Modifier, ...]:
        arguments: dict[str, Any] = {
            "sparsity": settings.sparsity,
            "mask_structure": settings.mask_structure,
        }
        if settings.sparsity_profile == "owl":
            # M and lambda as in the paper.
            arguments |= {"sparsity_profile": "owl", "owl_m": 5, "owl_lmbda": 0.08}
        return (Modifier(modifier, arguments),)

    return LlmCompressor(modifiers)


_SMOOTH = Modifier("ReadingSmoothQuant", {"smoothing_strength": 0.8})

METHODS: MappingProxyType[str, Method] = MappingProxyType(
    {
        method.name: method
        for method in (
            Method(
                name="w4a16",
                summary="4-bit weights in groups, by GPTQ",
                prunes=False,
                work=_in_groups("ZeroKeepingGptq"),
                options=_GROUPS | _CALIBRATION,
            ),
            Method(
                name="w4a16-rtn",
                summary="4-bit weights in groups, rounded to nearest",
                prunes=False,
                work=_in_groups("QuantizationModifier"),
                options=_GROUPS,
            ),
            Method(
                name="w8a16",
                summary="8-bit weights per output channel, by GPTQ",
                prunes=False,
                work=_per_channel("ZeroKeepingGptq"),
                options=_CALIBRATION,
            ),
            Method(
                name="w8a8",
                summary="8-bit weights and activations, by SmoothQuant and GPTQ",
                prunes=False,
                work=_scheme("ZeroKeepingGptq", "W8A8", _SMOOTH),
                options=_CALIBRATION,
            ),
            Method(
                name="fp8",
                summary="float8 weights per output channel, float8 activations",
                prunes=False,
                work=_scheme("QuantizationModifier", "FP8_DYNAMIC"),
            ),
            Method(
                name="nf4",
                summary="4-bit NormalFloat weights in blocks of 64, by bitsandbytes",
                prunes=False,
                work=BitsAndBytes({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}),
            ),
            Method(
                name="int8",
                summary="LLM.int8(), by bitsandbytes",
                prunes=False,
                work=BitsAndBytes({"load_in_8bit": True}),
            ),
            Method(
                name="sparsegpt",
                summary="zeros by SparseGPT, which mends the weights that stay",
                prunes=True,
                work=_prune("PerLayerSparseGpt"),
                options=_PRUNING | _CALIBRATION,
            ),
            Method(
                name="wanda",
                summary="zeros by Wanda: small weights on quiet inputs",
                prunes=True,
                work=_prune("PerLayerWanda"),
                options=_PRUNING | _CALIBRATION,
            ),
        )
    }
)


def plan(names: Sequence[str], **given: Any) -> tuple[tuple[Method, ...], Settings]:
    """The methods of a chain, and its settings.

    Args:
        names: of methods, in order.
        given: fields of :class:`Settings` that are not to have their defaults.

    Raises:
        UnknownMethod: a name is not in :data:`METHODS`.
        BadChain: more than one pruning and one quantisation, or in the other order.
        OptionUnused: an option that none of the methods heeds.
        OptionsContradict: two options that cannot both hold.
    """
    for name in names:
        if name not in METHODS:
            raise UnknownMethod(name, METHODS)
    methods = tuple(METHODS[name] for name in names)
    if [method.prunes for method in methods] not in ([True], [False], [True, False]):
        raise BadChain(names)
    for option in given:
        takers = [method.name for method in METHODS.values() if option in method.options]
        if not set(takers) & set(names):
            raise OptionUnused(option, names, takers)
    settings = Settings(**given)
    if settings.mask_structure == "2:4" and settings.sparsity != 0.5:
        raise OptionsContradict("--mask-structure 2:4", f"--sparsity {settings.sparsity:g}")
    if settings.mask_structure == "2:4" and settings.sparsity_profile == "owl":
        raise OptionsContradict("--mask-structure 2:4", "--sparsity-profile owl")
    return methods, settings
