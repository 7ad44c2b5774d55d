"""mobius-onnx's decoder graphs, taken without weights.

mobius declares the graph from the model's config in under a second and knows
onnxruntime's fused operators.  It would also read ``quantization_config`` and lay
linears out for a group size of its own choosing, so it is given a config without it:
the float skeleton comes back, and :mod:`exporter.lower` puts our weights under it.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mobius
import onnx_ir as ir

from exporter.checkpoint.errors import UnsupportedArchitecture
from exporter.graph.decoder import Decoder
from exporter.graph.families import FAMILIES
from exporter.graph.settings import CONTEXT_KEY
from manifests.errors import BadInput

_DTYPES = {"float32": "f32", "float16": "f16"}
_EP = "tabwright"

# GroupQueryAttention with rotary embedding inside, as both of onnxruntime-web's
# providers have it; q, k and v stay apart, since each linear carries codes of its own.
mobius.register_ep(
    mobius.EpCapabilities(name=_EP, gqa_dtypes=frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16})),
    overwrite=True,
)


class GraphUndeclared(BadInput):
    """mobius-onnx cannot make a graph of this config."""

    code = "graph-undeclared"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(
            f"{path}: no decoder graph can be declared from it: {reason}",
            "load the checkpoint in transformers: if that works, report this with the config",
        )


def check_architecture(path: Path, model_type: str) -> None:
    """Refuse a family whose graph was never compared with transformers.

    Raises:
        UnsupportedArchitecture: names it, and what is supported.
    """
    if model_type not in FAMILIES:
        raise UnsupportedArchitecture(path, model_type, FAMILIES)


def build_skeleton(path: Path, config: dict[str, Any], dtype: str, context_length: int) -> ir.Model:
    """Declare the decoder graph of ``config``, with named float initializers but no values.

    Args:
        path: of config.json, for errors.
        config: what it holds, without ``quantization_config``.
        dtype: ``float32`` or ``float16``, of the activations.
        context_length: positions that the rotary tables reach at most; see
            :func:`read_layout` for those that they do.

    Raises:
        GraphUndeclared: the config is not one that the architecture can have.
    """
    config = {**config, CONTEXT_KEY: context_length}
    with tempfile.TemporaryDirectory(prefix="tabwright-") as folder:
        (Path(folder) / "config.json").write_text(json.dumps(config))
        try:
            package = mobius.build(
                folder,
                task="text-generation",
                module_class=Decoder,
                dtype=_DTYPES[dtype],
                load_weights=False,
                execution_provider=_EP,
            )
        except Exception as error:
            # transformers and mobius raise whatever a strange value led them to.
            reason = str(error).splitlines() or [type(error).__name__]
            raise GraphUndeclared(path, reason[0]) from error
    model: ir.Model = package["model"]
    model.graph.name = str(config["model_type"])
    return model


@dataclass(frozen=True)
class Layout:
    """What feeds a graph: the shape of its cache, and how long a text it is right for."""

    layers: int
    kv_heads: int
    head_dim: int
    context_length: int


def read_layout(skeleton: ir.Model, context_length: int) -> Layout:
    """The layout of a graph that was declared for ``context_length``."""
    caches = [v.shape for v in skeleton.graph.inputs if str(v.name).startswith("past_key_values")]
    # The page's KV cache has one shape for all layers; so have all of our families.
    ((kv_heads, head_dim),) = {(shape[1], shape[3]) for shape in caches if shape is not None}
    assert isinstance(kv_heads, int)
    assert isinstance(head_dim, int)
    reaches = [
        value.shape[0]
        for name, value in skeleton.graph.initializers.items()
        if name.endswith(".cosines") and value.shape is not None
    ]
    reached = min((n for n in reaches if isinstance(n, int)), default=context_length)
    return Layout(len(caches) // 2, kv_heads, head_dim, reached)


def weight_shapes(skeleton: ir.Model) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that the graph waits for, in graph order."""
    return {
        name: tuple(dim for dim in value.shape if isinstance(dim, int))
        for name, value in skeleton.graph.initializers.items()
        if value.const_value is None and value.shape is not None
    }
