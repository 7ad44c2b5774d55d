"""Compressed formats by ``quantization_config.quant_method``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import MappingProxyType
from typing import Protocol

from exporter.checkpoint.awq import Awq
from exporter.checkpoint.bitsandbytes import BitsAndBytes
from exporter.checkpoint.compressed_tensors import CompressedTensors
from exporter.checkpoint.config import Part, read_part
from exporter.checkpoint.errors import UnsupportedScheme
from exporter.checkpoint.gptq import Gptq
from exporter.checkpoint.safetensors_file import StoredTensor
from exporter.checkpoint.weights import Dense, Packed


class Reader(Protocol):
    """A format, with its ``quantization_config`` read and checked.

    Attributes:
        remarks: what no export of such a checkpoint reproduces, each a sentence.
    """

    name: str
    remarks: tuple[str, ...]

    def read(self, tensors: dict[str, StoredTensor]) -> Iterator[Dense | Packed]:
        """Take the tensors of compressed weights out of ``tensors``; yield the weights.

        Raises:
            TensorMissing: a weight without one of its parts.
            WrongShape: parts of one weight that contradict each other.
            UnsupportedScheme: a weight kept in a way that is not read.
        """
        ...


#: By ``quant_method``: what reads ``quantization_config``, given with config.json's path.
READERS: MappingProxyType[str, Callable[[object, Path], Reader]] = MappingProxyType(
    {
        "awq": Awq,
        "bitsandbytes": BitsAndBytes,
        "compressed-tensors": CompressedTensors,
        "gptq": Gptq,
    }
)


class _Named(Part):
    quant_method: str = "unnamed"


def find_reader(config: object, path: Path) -> Reader:
    """The reader of the format that ``quantization_config`` names.

    Raises:
        NotACheckpoint: it is malformed.
        UnsupportedScheme: no format of that name is read, or not with these settings.
    """
    method = read_part(_Named, config, path, "quantization_config").quant_method
    if method not in READERS:
        raise UnsupportedScheme(path, method)
    return READERS[method](config, path)
