"""GGUF, llama.cpp's format: a model in one file, or in several with numbers."""

from exporter.checkpoint.gguf.read import Contents, read_gguf

__all__ = ["Contents", "read_gguf"]
