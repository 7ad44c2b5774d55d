"""Checkpoints of every format we read, opened the same way."""

from exporter.checkpoint.folder import Checkpoint, open_checkpoint
from exporter.checkpoint.weights import Dense, Packed

__all__ = ["Checkpoint", "Dense", "Packed", "open_checkpoint"]
