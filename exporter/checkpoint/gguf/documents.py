"""A GGUF file's metadata in the form of a Hugging Face checkpoint's files."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from exporter.checkpoint.documents import json_bytes
from exporter.checkpoint.gguf.config import generation_config, model_config
from exporter.checkpoint.gguf.header import Header
from exporter.checkpoint.gguf.roundtrip import check_lossless
from exporter.checkpoint.gguf.tokenizer import build_tokenizer

_TEMPLATE = "tokenizer.chat_template"
_SPECIAL = {"bos": "bos", "eos": "eos", "unk": "unknown", "pad": "padding"}


class GgufDocuments:
    """Each made when it is first asked for: a large vocabulary takes seconds."""

    def __init__(self, header: Header) -> None:
        self._header = header

    def read(self, name: str) -> bytes | None:
        """The file called ``name``, or None when there is none.

        Raises:
            UnknownGgufTokenizer, UnreadableGguf: there should be one, but it cannot be made.
            TokenizerNotLossless: the rebuilt tokenizer does not give texts back.
        """
        metadata = self._header.metadata
        match name:
            case "config.json":
                # Tells transformers that these weights are not its own to read.
                scheme = {"quantization_config": {"quant_method": "gguf"}}
                return json_bytes(model_config(self._header) | scheme)
            case "generation_config.json":
                return json_bytes(generation_config(self._header))
            case "tokenizer.json":
                return self._tokenizer
            case "tokenizer_config.json":
                return json_bytes(self._tokenizer_config())
            case "chat_template.jinja" if _TEMPLATE in metadata:
                return metadata.text(_TEMPLATE).encode()
            case _:
                return None

    @cached_property
    def _tokenizer(self) -> bytes:
        tokenizer = build_tokenizer(self._header.metadata)
        check_lossless(self._header.metadata.path, tokenizer)
        return tokenizer.to_str(pretty=True).encode()

    def _tokenizer_config(self) -> dict[str, Any]:
        metadata = self._header.metadata
        tokens = metadata.texts("tokenizer.ggml.tokens")
        special = {}
        for name, key in _SPECIAL.items():
            place = f"tokenizer.ggml.{key}_token_id"
            if place in metadata:
                special[f"{name}_token"] = tokens[metadata.token(place)]
        return {
            "backend": "tokenizers",
            "clean_up_tokenization_spaces": False,
            "model_max_length": model_config(self._header)["max_position_embeddings"],
            "tokenizer_class": "TokenizersBackend",
            **special,
        }
