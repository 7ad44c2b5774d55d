"""Weights told by their values: two names for one, or one tensor under two names.

Exporters fold a linear's transposition into its weight and call the result what they like,
and write a tied head a second time.  The values tell what became of what.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace
from math import prod
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from exporter.checkpoint import Checkpoint, Dense
from exporter.checkpoint.onnx_file import MAX_GRAPH_BYTES, OnnxFile, OnnxUnsupported
from exporter.checkpoint.weights import Stored, Transposed, row_blocks
from exporter.graph.foreign import ForeignDecoder
from exporter.graph.sites import Site

_Print = tuple[tuple[int, ...], bytes]


def tie(decoder: ForeignDecoder, file: OnnxFile) -> ForeignDecoder:
    """Let head and embedding be one weight where their values are the same.

    ``decoder.model`` is changed.
    """
    by_role = {site.role: name for name, site in decoder.sites.items()}
    head, embedding = by_role.get("head"), by_role.get("embedding")
    if head is None or embedding is None:
        return decoder
    one, other = (_weight(decoder, file, name) for name in (head, embedding))
    if one.shape != other.shape or _print(one) != _print(other):
        return decoder
    initializers = decoder.model.graph.initializers
    initializers.pop(head).replace_all_uses_with(initializers[embedding])
    sites = {name: site for name, site in decoder.sites.items() if name != head}
    return replace(decoder, sites=sites | {embedding: Site("tied", transposed=False)})


def match(decoder: ForeignDecoder, file: OnnxFile, checkpoint: Checkpoint) -> ForeignDecoder:
    """Name the initializers after the checkpoint's weights that have their values.

    What equals none is a table that the exporter made, and stays in the graph.
    ``decoder.model`` is changed.

    Raises:
        OnnxUnsupported: such tables are too large for a graph.
    """
    initializers = decoder.model.graph.initializers
    named = _prints(checkpoint, {_weight(decoder, file, name).shape for name in decoder.sites})
    sites: dict[str, Site] = {}
    claimed: dict[str, ir.Value] = {}
    tables = 0
    for old in decoder.weights:
        value, weight, site = initializers.pop(old), _weight(decoder, file, old), None
        alike = [name for name in named.get(_print(weight), ()) if name.weight not in claimed]
        if old in decoder.sites:
            site = decoder.sites[old]
        else:
            alike = [name for name in alike if not name.transposed]
        if alike:
            # Equal weights, such as biases of zeros, are told apart by their names.
            name = next((each for each in alike if each.weight == old), alike[0])
            claimed[name.weight] = value
            if site is not None:
                sites[name.weight] = Site(site.role, name.transposed)
            continue
        tables += 4 * prod(weight.shape)
        if tables > MAX_GRAPH_BYTES:
            raise OnnxUnsupported(
                decoder.path,
                f"{old} has the values of no weight in {checkpoint.path}",
                "report it with config.json: optimum wrote the weights otherwise than they are",
            )
        value.const_value = ir.tensor(weight.values(), name=old)
        initializers[old] = value
    claimed |= _merged(named, claimed)
    for new, value in claimed.items():
        value.name = new
        initializers[new] = value
    return replace(decoder, sites=sites)


class _Name(NamedTuple):
    """A weight of the checkpoint, as it is or transposed."""

    weight: str
    transposed: bool


def _prints(checkpoint: Checkpoint, matrices: set[tuple[int, ...]]) -> dict[_Print, list[_Name]]:
    """The checkpoint's weights by their values; also transposed to one of ``matrices``."""
    named: defaultdict[_Print, list[_Name]] = defaultdict(list)
    for name, weight in checkpoint.weights.items():
        assert isinstance(weight, Stored)
        named[_print(weight)].append(_Name(name, transposed=False))
        if len(weight.shape) == 2 and weight.shape[::-1] in matrices:
            named[_print(Transposed(weight.stored))].append(_Name(name, transposed=True))
    return named


def _merged(named: dict[_Print, list[_Name]], claimed: dict[str, ir.Value]) -> dict[str, ir.Value]:
    """Vectors that the exporter made one with their like: the ledger lists them all."""
    floats = ir.TensorType(ir.DataType.FLOAT)
    return {
        name.weight: ir.Value(type=floats, shape=ir.Shape(shape))
        for (shape, _), names in named.items()
        if len(shape) == 1 and any(name.weight in claimed for name in names)
        for name in names
        if name.weight not in claimed
    }


def _weight(decoder: ForeignDecoder, file: OnnxFile, name: str) -> Dense:
    stored = file.weights[name]
    return Transposed(stored) if decoder.transposes(name) else Stored(stored)


def _print(weight: Dense) -> _Print:
    """What two weights have in common if their values and shapes are the same."""
    digest = hashlib.sha256()
    for start, stop in row_blocks(weight.shape[0], prod(weight.shape[1:])):
        digest.update(np.ascontiguousarray(weight.rows(start, stop)).data)
    return weight.shape, digest.digest()
