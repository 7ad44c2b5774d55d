"""Hugging Face optimum's ONNX exporter, in an environment of its own.

It needs a transformers that ours cannot live beside: see docs/decisions/0005.
"""
