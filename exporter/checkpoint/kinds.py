"""Kinds of models that no bundle can hold yet, told from a config by name."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Any

from exporter.checkpoint.errors import UnsupportedArchitecture
from exporter.graph.families import FAMILIES

#: A key of ``config.json`` that only such a model sets, and what the model then is.
_KINDS: MappingProxyType[str, str] = MappingProxyType(
    {
        "vision_config": "a multimodal model",
        "audio_config": "a multimodal model",
        "text_config": "a multimodal model",
        "is_encoder_decoder": "an encoder-decoder",
        "num_local_experts": "a mixture of experts",
        "num_experts": "a mixture of experts",
        "n_routed_experts": "a mixture of experts",
        "moe_num_experts": "a mixture of experts",
    }
)


def refuse_other_kinds(path: Path, config: dict[str, Any]) -> None:
    """Refuse what is no plain decoder, before its missing sizes are complained about.

    Raises:
        UnsupportedArchitecture: names the kind.
    """
    for key, kind in _KINDS.items():
        if config.get(key):
            named = f"{config.get('model_type')}, {kind},"
            raise UnsupportedArchitecture(path, named, FAMILIES)
