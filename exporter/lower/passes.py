"""The passes, in order.  Each asks the target what it can do, never what it is called."""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal

import onnx_ir as ir

from exporter.lower.interface import keep_last_logits
from exporter.lower.matrices import lower_matrices, lower_vectors
from exporter.lower.resident import stay_resident
from exporter.lower.types import tell_types
from exporter.write.store import StoredWeights
from targets import Target

Kind = Literal["conventional", "resident"]
_INTERFACES: MappingProxyType[Kind, Callable[[ir.Model], None]] = MappingProxyType(
    {"conventional": keep_last_logits, "resident": stay_resident}
)


def lower(
    skeleton: ir.Model, target: Target, store: StoredWeights, kind: Kind = "conventional"
) -> ir.Model:
    """Turn a float skeleton into a graph that ``target`` runs, over ``store``'s weights.

    The skeleton is left as it was.  ``kind`` says what the graph is fed and gives: see
    docs/architecture.md.

    Raises:
        GraphUnexpected: the skeleton has a part that no pass knows.
    """
    model = skeleton.clone()
    _INTERFACES[kind](model)
    lower_matrices(model, target, store)
    lower_vectors(model, target, store)
    if target.matmul == "dequantize-linear":
        tell_types(model)
    return model
