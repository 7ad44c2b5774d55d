"""Is the ledger true?  Recomputed from the checkpoint and the bundle, both read anew.

Formats are read here from their specifications with safetensors and NumPy; nothing is
shared with the exporter's reading, packing or rounding, so that one mistake cannot be
made on both sides.
"""

from exporter.prove.ledger import Proof, prove

__all__ = ["Proof", "prove"]
