"""``adapter_config.json`` of a PEFT LoRA: what is honoured, and what is refused by name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import Field, StrictBool

from exporter.checkpoint.config import Part, read_json, read_part
from exporter.checkpoint.errors import NotACheckpoint
from manifests.errors import BadInput

CONFIG = "adapter_config.json"
TENSORS = "adapter_model.safetensors"
#: Ways to start training that leave the base model as it was.
_HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")
#: Settings of training or loading, or defaults of methods that another setting turns on.
_WITHOUT_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "eva_config",
        "inference_mode",
        "layers_pattern",
        "lora_dropout",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
    }
)
#: Above the modules of any model; each name is held against each module.
_MAX_NAMES = 1024
#: Above the dots in the name of any module: a name of dots alone would have a million ends.
_DEEPEST = 32

_Rank = Annotated[int, Field(ge=1, le=1 << 16)]
_Alpha = Annotated[float, Field(ge=-1e9, le=1e9, allow_inf_nan=False)]
_Names = Annotated[tuple[str, ...], Field(max_length=_MAX_NAMES)]
_Ranks = Annotated[dict[str, _Rank], Field(max_length=_MAX_NAMES)]
_Alphas = Annotated[dict[str, _Alpha], Field(max_length=_MAX_NAMES)]

N = TypeVar("N", int, float)


class AdapterUnmerged(BadInput):
    """A folder with an adapter was given as if it were a whole model."""

    code = "adapter-unmerged"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: holds a PEFT adapter ({CONFIG}), which changes a base model",
            f"name both: tabwright export BASE --lora {path} ..., BASE being the model's folder",
        )


class NotAnAdapter(BadInput):
    """The path is not an adapter's folder, or its config is malformed."""

    code = "not-an-adapter"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: not an adapter: {reason}",
            f"give a folder that PEFT's save_pretrained wrote: {CONFIG}, {TENSORS}",
        )


class UnsupportedAdapter(BadInput):
    """A method, or a part of one, that is not merged."""

    code = "unsupported-adapter"

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(
            f"{path}: {what} is not supported",
            "merge it with PEFT's merge_and_unload, save that model, and export it",
        )


class AdapterMisfit(BadInput):
    """A tensor of the adapter has no place in the base model, or another shape."""

    code = "adapter-misfit"

    def __init__(self, path: Path, name: str, reason: str) -> None:
        super().__init__(
            f"{path}: tensor {name}: {reason}", "give the base model that it was trained on"
        )


class LoraConfig(Part):
    """The settings that say what is merged, by PEFT's names."""

    peft_type: str
    task_type: str | None = None
    r: _Rank = 8
    lora_alpha: _Alpha = 8
    use_rslora: StrictBool = False
    use_dora: StrictBool = False
    bias: str = "none"
    fan_in_fan_out: StrictBool = False
    init_lora_weights: object = True
    rank_pattern: _Ranks = Field(default_factory=dict)
    alpha_pattern: _Alphas = Field(default_factory=dict)
    target_modules: str | _Names | None = None
    exclude_modules: str | _Names | None = None
    layers_to_transform: int | tuple[int, ...] | None = None
    modules_to_save: _Names | None = None


def read_config(path: Path) -> LoraConfig:
    """Read the adapter's config.

    Raises:
        NotAnAdapter: missing or malformed.
        UnsupportedAdapter: names the first setting that is not honoured.
    """
    try:
        fields = read_json(path)
        kind = fields.get("peft_type")
        if isinstance(kind, str) and kind != "LORA":
            raise UnsupportedAdapter(path, f"an adapter of the kind {kind!r:.40}")
        config = read_part(LoraConfig, fields, path)
    except NotACheckpoint as error:
        raise NotAnAdapter(path.parent, str(error).partition("not a checkpoint: ")[2]) from None
    for reason in _refusals(config, fields):
        raise UnsupportedAdapter(path, reason)
    return config


def _refusals(config: LoraConfig, fields: dict[str, Any]) -> list[str]:
    found = [
        f"the setting {name!r:.40}"
        for name, value in fields.items()
        if value and name not in _WITHOUT_EFFECT and name not in LoraConfig.model_fields
    ]
    if config.task_type not in (None, "CAUSAL_LM"):
        found.append(f"task_type {config.task_type!r:.40}")
    if config.bias != "none":
        found.append(f"bias {config.bias!r:.40}")
    if config.fan_in_fan_out:
        found.append("fan_in_fan_out")
    if config.init_lora_weights not in _HARMLESS_STARTS:
        start = f"{config.init_lora_weights!r:.40}"
        found.append(f"init_lora_weights {start}, which changes the base model,")
    # PEFT reads these keys as regular expressions; a plain name means the same in both.
    found += [
        f"the regular expression {key!r:.40}"
        for key in (*config.rank_pattern, *config.alpha_pattern)
        if not re.fullmatch(r"[\w.]+", key)
    ]
    return found


def names_one(module: str, names: Container[str]) -> bool:
    """Whether one of ``names`` is the module's name, or the end of it after a dot."""
    return any(ending in names for ending in _endings(module))


def by_module(pattern: Mapping[str, N], module: str, default: N) -> N:
    """The value of the first key that is the module's name, or the end of it after a dot."""
    found = [ending for ending in _endings(module) if ending in pattern]
    if len(found) > 1:
        found = [key for key in pattern if key in found]
    return pattern[found[0]] if found else default


def _endings(module: str) -> Iterator[str]:
    """A module's name and what follows each of its dots, at most :data:`_DEEPEST`."""
    yield module
    rest = module
    for _ in range(_DEEPEST):
        _, dot, rest = rest.partition(".")
        if not dot:
            return
        yield rest
