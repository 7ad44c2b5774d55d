"""What a bundle must be for each place it can run: data, and nothing that acts.

A pass asks a target what it can do (``target.matmul``), never what it is called.
"""

from targets.catalog import TARGETS, Target, UnknownTarget, find_targets

__all__ = ["TARGETS", "Target", "UnknownTarget", "find_targets"]
