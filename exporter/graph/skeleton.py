"""mobius-onnx's decoder graphs, taken without weights.

mobius declares the graph from the model's config in under a second and knows
onnxruntime's fused operators.  It would also read ``quantization_config`` and lay
linears out for a group size of its own choosing, so it is given a config without it:
the float skeleton comes back, and :mod:`exporter.lower` puts our weights under it.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mobius
import onnx_ir as ir
import transformers.utils

from exporter.checkpoint.errors import UnsupportedArchitecture
from exporter.graph.decoder import Decoder
from exporter.graph.families import FAMILIES
from exporter.graph.settings import CONTEXT_KEY
from exporter.graph.task import Generation
from manifests.errors import BadInput

_DTYPES = {"float32": "f32", "float16": "f16"}
_EP = "tabwright"
_OTHERS = "and with --graph optimum what optimum-onnx knows"

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
        raise UnsupportedArchitecture(path, model_type, (*FAMILIES, _OTHERS))


def build_skeleton(path: Path, config: dict[str, Any], dtype: str, context_length: int) -> ir.Model:
    """Declare the decoder graph of ``config``, with named float initializers but no values.

    Args:
        path: of config.json, for errors.
        config: what it holds, without ``quantization_config``.
        dtype: ``float32`` or ``float16``, of the activations.
        context_length: positions that the rotary tables reach at most; see
            :func:`reached_context` for those that they do.

    Raises:
        GraphUndeclared: the config is not one that the architecture can have.
    """
    config = {**config, CONTEXT_KEY: context_length}
    with tempfile.TemporaryDirectory(prefix="tabwright-") as folder, _undocumented():
        (Path(folder) / "config.json").write_text(json.dumps(config))
        try:
            package = mobius.build(
                folder,
                task=Generation(),
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
    family = FAMILIES[config["model_type"]]
    for weight in list(model.graph.initializers.values()):
        weight.name = family.rename(str(weight.name))
    return model


@contextmanager
def _undocumented() -> Iterator[None]:
    """Meanwhile transformers' config classes are imported without their docstrings.

    The decorator that completes them (transformers 5.x) imports the index of all models for
    that, accelerate among them: 3 s and 180 MiB, of 4 s and 530 MiB up to a config.
    """
    utils: Any = transformers.utils
    completing, utils.auto_docstring = utils.auto_docstring, _as_it_is
    try:
        yield
    finally:
        utils.auto_docstring = completing


def _as_it_is(obj: Any = None, **_: Any) -> Any:
    return (lambda given: given) if obj is None else obj


def reached_context(skeleton: ir.Model, context_length: int) -> int:
    """Positions that a graph declared for ``context_length`` is right for."""
    reaches = [
        value.shape[0]
        for name, value in skeleton.graph.initializers.items()
        if name.endswith(".cosines") and value.shape is not None
    ]
    return min((n for n in reaches if isinstance(n, int)), default=context_length)


def weight_shapes(skeleton: ir.Model) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the weights that the graph waits for, in graph order."""
    return {
        name: tuple(dim for dim in value.shape if isinstance(dim, int))
        for name, value in skeleton.graph.initializers.items()
        if value.const_value is None and value.shape is not None
    }
