"""The kinds of input that are attacked: a valid checkpoint of each, and where it is hit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.attacks import tiny, tiny_binary
from tests.attacks.documents import GGUF, HEADER, ONNX, SCHEME, STATE, TENSORS, WHOLE, Document
from tests.attacks.tiny import Files
from tests.attacks.walk import Shapes, export_whole, walk

Read = Callable[[Path, Shapes], None]


@dataclass(frozen=True)
class Kind:
    """A kind of hostile input.

    Attributes:
        files: a valid checkpoint, its adapter's files under ``adapter/``.
        target: the file that is mutated.
        document: the JSON in it, by which it is mutated more often than as bytes.
        floor: the least share of mutants that must be refused; a lower one means that
            mutation has come to miss what is read.
        read: what the mutants are given to.
        every: rounds from one mutant to the next, for what takes many times as long.
    """

    files: Callable[[], Files]
    target: str
    document: Document
    floor: float = 0.6
    read: Read = walk
    every: int = 1


_SCHEMES = (
    tiny.packed,
    tiny.int8,
    tiny.float8,
    tiny.sparse,
    tiny.gptq,
    tiny.awq,
    tiny.llm_int8,
    tiny.nf4,
)
#: What is exported whole: the tests attack it apart, since its imports take seconds.
EXPORTS: dict[str, Kind] = {
    **{
        f"export of {name}": Kind(tiny.whole, f"{name}.json", WHOLE, read=export_whole, every=50)
        for name in ("config", "generation_config", "tokenizer_config")
    },
    "export of ONNX": Kind(tiny_binary.decoder, "model.onnx", ONNX, read=export_whole, every=50),
}
KINDS: dict[str, Kind] = {
    "config": Kind(tiny.plain, "config.json", WHOLE),
    "index": Kind(tiny.sharded, "model.safetensors.index.json", WHOLE),
    "tokenizer": Kind(tiny.plain, "tokenizer.json", WHOLE),
    "tokenizer of many parts": Kind(tiny.tokenized, "tokenizer.json", WHOLE),
    "GGUF": Kind(tiny_binary.gguf, "model.gguf", GGUF),
    "ONNX": Kind(tiny_binary.onnx, "model.onnx", ONNX),
    "quant_state of nf4": Kind(tiny.nf4, "model.safetensors", STATE),
    "adapter_config of lora": Kind(tiny.lora, "adapter/adapter_config.json", WHOLE),
    "adapter_config of dora": Kind(tiny.dora, "adapter/adapter_config.json", WHOLE),
    "header of an adapter": Kind(tiny.dora, "adapter/adapter_model.safetensors", HEADER),
    **{
        f"header of {make.__name__}": Kind(make, "model.safetensors", HEADER)
        for make in (tiny.plain, *_SCHEMES)
    },
    "tensors of an adapter": Kind(tiny.dora, "adapter/adapter_model.safetensors", TENSORS),
    **{
        f"tensors of {make.__name__}": Kind(make, "model.safetensors", TENSORS)
        for make in (tiny.plain, *_SCHEMES)
    },
    **{
        f"quantization_config of {make.__name__}": Kind(make, "config.json", SCHEME)
        for make in _SCHEMES
    },
}
