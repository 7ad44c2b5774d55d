"""Open a GGUF model: its config, its documents and its weights by transformers' names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.checkpoint.errors import ShardMissing, UnsupportedScheme
from exporter.checkpoint.gguf.architectures import GLOBAL, Architecture
from exporter.checkpoint.gguf.config import (
    LLAMA3_FACTORS,
    LONG_FACTORS,
    SHORT_FACTORS,
    architecture_of,
    model_config,
)
from exporter.checkpoint.gguf.documents import GgufDocuments
from exporter.checkpoint.gguf.errors import UnreadableGguf, UnsupportedGguf
from exporter.checkpoint.gguf.header import GgufTensor, Header, read_header
from exporter.checkpoint.gguf.weights import Place, weight_of
from exporter.checkpoint.inside import refuse_link_out
from exporter.checkpoint.weights import Dense, Packed

_LAYER = re.compile(r"blk\.(\d{1,4})\.([a-z_0-9]+)\.(weight|bias)")
_NUMBERED = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_NO_WEIGHTS = frozenset({LLAMA3_FACTORS, LONG_FACTORS, SHORT_FACTORS})
_ROTATED = frozenset({"attn_q", "attn_k"})


@dataclass(frozen=True)
class Contents:
    """What is in a GGUF model.

    Attributes:
        config: as config.json would have it.
        weights: by the module's weight name, in file order; a tensor that the architecture
            does not know keeps the name that it has in the file.
    """

    config: dict[str, Any]
    documents: GgufDocuments
    weights: dict[str, Dense | Packed]
    files: tuple[Path, ...]


def read_gguf(path: Path) -> Contents:
    """Read the header of the GGUF file ``path``, and of those that it was split into.

    Raises:
        UnreadableGguf: it is damaged.
        UnsupportedGguf: an architecture or a rotation that is not known.
        UnsupportedScheme: a tensor of a type that cannot be dequantised.
        ShardMissing: a part of it is not there.
        LinkOutside: a part that its name implies is a link out of its folder.
    """
    files = _files(path)
    first, *others = (read_header(file) for file in files)
    if first.metadata.integer("split.count", 1) != len(files):
        raise UnsupportedGguf(path, "a part of a split file under another name")
    tensors = dict(first.tensors)
    for number, part in enumerate(others, 1):
        if part.metadata.integer("split.no") != number or tensors.keys() & part.tensors.keys():
            raise UnreadableGguf(part.metadata.path, f"is not part {number + 1} of {path.name}")
        tensors |= part.tensors
    if first.metadata.integer("split.tensors.count", len(tensors)) != len(tensors):
        raise UnreadableGguf(path, f"its parts hold {len(tensors)} tensors, not all of them")
    header = Header(first.metadata, tensors)
    config = model_config(header)
    weights = {place.name: _weight(place) for place in _places(header, config)}
    return Contents(config, GgufDocuments(header), weights, files)


def _files(path: Path) -> tuple[Path, ...]:
    """All parts of what ``path`` is one part of.

    ``path`` itself may be a link to anywhere: who names a file has chosen it.  The others
    are found by name only, in a folder that somebody else may have filled.
    """
    named = _NUMBERED.fullmatch(path.name)
    if named is None:
        return (path,)
    stem, _, count = named.groups()
    files = [
        path.with_name(f"{stem}-{number:05}-of-{count}.gguf") for number in range(1, int(count) + 1)
    ]
    if path not in files:
        raise UnsupportedGguf(path, "a part of a split file under another name")
    for file in files:
        if file != path:
            refuse_link_out(file)
        if not file.is_file():
            raise ShardMissing(file, path)
    return tuple(files)


def _places(header: Header, config: dict[str, Any]) -> Iterator[Place]:
    architecture = architecture_of(header)
    for tensor in header.tensors.values():
        if tensor.name in _NO_WEIGHTS:
            continue
        module, kind = tensor.name.rpartition(".")[::2]
        layer = _LAYER.fullmatch(tensor.name)
        if module in GLOBAL:
            name = f"{GLOBAL[module]}.{kind}"
            yield Place(tensor, name, offset=_offset(architecture, tensor))
        elif layer is not None and layer[2] in architecture.parts:
            rotated = architecture.interleaved and layer[2] in _ROTATED
            name = f"model.layers.{int(layer[1])}.{architecture.parts[layer[2]]}.{layer[3]}"
            head = _head_rows(tensor, config) if rotated else None
            yield Place(tensor, name, head, _offset(architecture, tensor))
        else:
            yield Place(tensor, tensor.name)


def _offset(architecture: Architecture, tensor: GgufTensor) -> float:
    is_norm = architecture.offset_norms and tensor.name.endswith("norm.weight")
    return 1.0 if is_norm else 0.0


def _head_rows(tensor: GgufTensor, config: dict[str, Any]) -> int:
    rows = tensor.shape[-1] if len(tensor.shape) == 1 else tensor.shape[0]
    width = int(config["head_dim"])
    if width % 2 or rows % width:
        raise UnreadableGguf(tensor.path, f"tensor {tensor.name} has no whole heads of {width}")
    return width


def _weight(place: Place) -> Dense | Packed:
    try:
        return weight_of(place)
    except NotImplementedError:
        what = f"GGML type {place.tensor.type.name} (tensor {place.tensor.name})"
        raise UnsupportedScheme(place.tensor.path, what) from None
