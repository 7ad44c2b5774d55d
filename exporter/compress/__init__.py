"""Making compressed checkpoints: llm-compressor recipes and the demo checkpoint.

An extra: ``pip install tabwright[compress]``.  What it writes is read again by
:mod:`exporter.checkpoint` like anyone else's.
"""
