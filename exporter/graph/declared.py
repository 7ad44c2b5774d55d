"""Where a checkpoint's graph comes from, and which of its weights the graph takes.

Our own families are declared (:mod:`exporter.graph.skeleton`).  A checkpoint that comes
with an ONNX graph has that one; and an ONNX graph that was made of a checkpoint in floats
can be put over the checkpoint's own weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from exporter.checkpoint import Checkpoint, Dense, Packed
from exporter.checkpoint.folder import GRAPH, HEAD
from exporter.checkpoint.onnx_file import open_onnx
from exporter.checkpoint.weights import Stored, Transposed
from exporter.graph.foreign import ForeignDecoder, read_decoder
from exporter.graph.matching import match, tie
from exporter.graph.sites import refused
from exporter.graph.skeleton import build_skeleton, check_architecture, weight_shapes
from exporter.lower.interface import find_logits, shape_of
from exporter.write.store import MatrixRole
from manifests.errors import BadInput

_EMBEDDING = "model.embed_tokens.weight"
_FUSED = "GroupQueryAttention"


class WrongActivations(BadInput):
    """A ready-made graph computes in another float type than a target."""

    code = "wrong-activations"

    def __init__(self, path: Path, has: str, wanted: str) -> None:
        super().__init__(
            f"{path}: the graph computes in {has}, and a target asks for {wanted}",
            f"choose targets that compute in {has}",
        )


@dataclass(frozen=True)
class Declared:
    """Graphs without weights, and the weights that they wait for.

    Attributes:
        skeletons: by the dtype of their activations.
        weights: in the graph's order, in which onnxruntime reads them too; matrices are [N, K].
        roles: of the matrices, by name.
        remarks: what is to be known of the graph, each a sentence.
    """

    skeletons: Mapping[str, ir.Model]
    weights: list[Dense | Packed]
    roles: Mapping[str, MatrixRole]
    remarks: tuple[str, ...] = ()


def declare(checkpoint: Checkpoint, dtypes: Iterable[str], context: int) -> Declared:
    """Declare ``checkpoint``'s graph for activations of ``dtypes``.

    Args:
        checkpoint: of one of our families, or with an ONNX graph.
        dtypes: ``float32``, ``float16`` or both.
        context: positions that the rotary tables reach at most.

    Raises:
        UnsupportedArchitecture, GraphUndeclared: its config.
        OnnxCorrupt, OnnxUnsupported, WrongActivations: its graph.
        TensorMissing, TensorUnknown, WrongShape: graph and weights do not fit.
    """
    if checkpoint.graph is not None:
        decoder = tie(read_decoder(checkpoint.path / GRAPH, checkpoint.graph), checkpoint.graph)
        return _adopt(checkpoint, decoder, dtypes)
    config = checkpoint.path / "config.json"
    check_architecture(config, checkpoint.decoder.model_type)
    skeletons = {
        dtype: build_skeleton(config, checkpoint.config, dtype, context) for dtype in dtypes
    }
    shapes = weight_shapes(next(iter(skeletons.values())))
    roles: dict[str, MatrixRole] = {
        name: "linear" for name, shape in shapes.items() if len(shape) == 2
    }
    roles |= {_EMBEDDING: "embedding", HEAD: "head"} if HEAD in shapes else {_EMBEDDING: "tied"}
    return Declared(skeletons, checkpoint.select(shapes), roles)


def declare_over(checkpoint: Checkpoint, graph: Path, dtypes: Iterable[str]) -> Declared:
    """Put the ONNX graph in ``graph`` over the weights of the checkpoint it was made of.

    Raises:
        OnnxCorrupt, OnnxUnsupported, WrongActivations: the graph.
        TensorUnknown: a weight of the checkpoint is not in the graph.
    """
    file = open_onnx(graph)
    decoder = match(tie(read_decoder(graph, file), file), file, checkpoint)
    return _adopt(checkpoint, decoder, dtypes)


def _adopt(checkpoint: Checkpoint, decoder: ForeignDecoder, dtypes: Iterable[str]) -> Declared:
    for dtype in dtypes:
        if dtype != decoder.dtype:
            raise WrongActivations(decoder.path, decoder.dtype, dtype)
    width, told = shape_of(find_logits(decoder.model.graph))[2], checkpoint.decoder.vocab_size
    if width != told:
        raise refused(
            decoder.path,
            f"has {width} logits, and config.json a vocabulary of {told}",
            "give the config.json that the graph was made of",
        )
    selected = checkpoint.select(decoder.weights)
    weights = [
        Transposed(weight.stored)
        if isinstance(weight, Stored) and decoder.transposes(weight.name)
        else weight
        for weight in selected
    ]
    nodes = list(decoder.model.graph)
    remarks = [f"the graph is another exporter's, of {len(nodes):,} operators"]
    if all(node.op_type != _FUSED for node in nodes):
        remarks.append("its attention is spelt out, which is slower than one fused operator")
    roles = {name: site.role for name, site in decoder.sites.items()}
    return Declared({decoder.dtype: decoder.model}, weights, roles, tuple(remarks))
