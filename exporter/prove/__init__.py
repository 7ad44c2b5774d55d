"""Is the ledger true?  Recomputed from the checkpoint and the bundle, both read anew.

Formats are read here from their specifications with NumPy, files by a mapping of their
own, the onnx package or the gguf package; nothing is shared with the exporter's reading
of weights, packing or rounding, so that one mistake cannot be made on both sides.

Two things are shared.  :func:`exporter.checkpoint.open_checkpoint` checks that the files
are whole and says which they are.  And GGUF's rarer types (Q2_K, Q3_K, Q5_0, the IQs and
others), which are never carried, are made floats by the gguf package on both sides: of
those, the proof is of the rounding alone.
"""

from exporter.prove.ledger import Proof, prove

__all__ = ["Proof", "prove"]
