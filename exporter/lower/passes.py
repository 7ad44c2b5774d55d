"""The passes, in order.  Each asks the target what it can do, never what it is called."""

from __future__ import annotations

import onnx_ir as ir

from exporter.lower.interface import keep_last_logits, name_dimensions
from exporter.lower.matrices import lower_matrices, lower_vectors
from exporter.write.store import StoredWeights
from targets import Target


def lower(skeleton: ir.Model, target: Target, store: StoredWeights) -> ir.Model:
    """Turn a float skeleton into the graph that ``target`` runs, over ``store``'s weights.

    The skeleton is left as it was.

    Raises:
        GraphUnexpected: the skeleton has a part that no pass knows.
    """
    model = skeleton.clone()
    name_dimensions(model)
    keep_last_logits(model)
    lower_matrices(model, target, store)
    lower_vectors(model, target, store)
    return model
