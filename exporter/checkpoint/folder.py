"""A checkpoint: config, tokenizer, weights; a Hugging Face folder or a GGUF file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter.checkpoint.adapter import Merged, Saved, merge_adapter
from exporter.checkpoint.adapter_config import CONFIG as ADAPTER_CONFIG
from exporter.checkpoint.adapter_config import TENSORS as ADAPTER_TENSORS
from exporter.checkpoint.adapter_config import AdapterUnmerged, UnsupportedAdapter
from exporter.checkpoint.config import MAX_WIDTH, DecoderConfig, read_json, read_part
from exporter.checkpoint.documents import Documents, FolderDocuments
from exporter.checkpoint.errors import (
    NotACheckpoint,
    PickleRefused,
    ShardCorrupt,
    ShardMissing,
    TensorMissing,
    TensorUnknown,
    WrongShape,
)
from exporter.checkpoint.formats import find_reader
from exporter.checkpoint.gguf import read_gguf
from exporter.checkpoint.inside import file_names, refuse_links_out
from exporter.checkpoint.kinds import refuse_other_kinds
from exporter.checkpoint.onnx_file import OnnxFile, open_onnx
from exporter.checkpoint.safetensors_file import StoredTensor, open_safetensors
from exporter.checkpoint.weights import Dense, Packed, Stored
from manifests.bundle import Source, SourceFile
from manifests.progress import Progress, silent

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
#: Read where there are no safetensors.
GRAPH = "model.onnx"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
OPTIONAL_FILES = ("chat_template.jinja", "generation_config.json")
HEAD = "lm_head.weight"
#: Buffers that older versions of transformers saved and every version recomputes.
_DERIVED = ("rotary_emb.inv_freq", "self_attn.bias", "self_attn.masked_bias")
#: Twice the largest tokenizer.json that is known.
_MAX_COPIED_BYTES = 64 << 20
_READ = 1 << 20


@dataclass(frozen=True)
class Checkpoint:
    """An opened checkpoint.  No weight has been read yet.

    Attributes:
        config: ``config.json``, without its ``quantization_config``.
        decoder: what we read of it, checked.
        weights: by the module's weight name, in file order.
        adapter_files: of the adapter that is merged into ``weights``; empty without one.
        remarks: what its format asks for that no bundle does, each a sentence.
        graph: the ONNX graph that the weights came with; None where there is none.
        documents: its configs, tokenizer and chat template.
    """

    path: Path
    format: str
    config: dict[str, Any]
    decoder: DecoderConfig
    weights: dict[str, Dense | Packed]
    weight_files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()
    adapter_files: tuple[Path, ...] = ()
    graph: OnnxFile | None = None
    documents: Documents = field(kw_only=True)

    def weight(self, name: str) -> Dense | Packed:
        """The weight called ``name``.

        Raises:
            TensorMissing: there is none.
        """
        if name not in self.weights:
            raise TensorMissing(self.path, name)
        return self.weights[name]

    def select(self, shapes: Mapping[str, tuple[int, ...]]) -> list[Dense | Packed]:
        """The weights that a graph waits for, in its order.

        Raises:
            TensorMissing: one of ``shapes`` is not in the checkpoint.
            TensorUnknown: the checkpoint has one that is not in ``shapes``, and no graph
                that says so.
            WrongShape: one is there with another shape.
            UnsupportedAdapter: an adapter changed a head that is not used.
        """
        for name, shape in shapes.items():
            weight = self.weight(name)
            if weight.shape != shape:
                reason = f"shape {list(weight.shape)}, config.json asks for {list(shape)}"
                raise WrongShape(weight.path, name, reason)
        ignored = _DERIVED if HEAD in shapes else (*_DERIVED, HEAD)
        if HEAD not in shapes and isinstance(self.weights.get(HEAD), Merged | Saved):
            # The head that the file holds besides is not used: the change would be lost.
            raise UnsupportedAdapter(self.weights[HEAD].path, f"changing a tied {HEAD}")
        for name, weight in self.weights.items():
            used = name in shapes or name.endswith(ignored) or self.graph is not None
            if not used and not _adds_nothing(weight):
                raise TensorUnknown(weight.path, name)
        return [self.weights[name] for name in shapes]

    def source(self, progress: Progress = silent) -> Source:
        """Digest the files that a bundle is made from."""
        named = ("config.json", *TOKENIZER_FILES, *OPTIONAL_FILES)
        paths = [path for path in (self.path / name for name in named) if path.is_file()]
        paths += [*self.weight_files, *self.adapter_files]
        total = sum(path.stat().st_size for path in paths)
        files, done = [], 0
        for path in paths:
            digest = hashlib.sha256()
            with path.open("rb") as file:
                while block := file.read(_READ):
                    digest.update(block)
                    done += len(block)
                    progress("digest checkpoint", done, total)
            size = path.stat().st_size
            files.append(SourceFile(path=path.name, size=size, sha256=digest.hexdigest()))
        joined = "".join(f"{file.path}\0{file.sha256}\n" for file in files)
        return Source(
            format=self.format,
            files=tuple(files),
            digest=hashlib.sha256(joined.encode()).hexdigest(),
            remarks=self.remarks,
        )


def open_checkpoint(path: Path, adapter: Path | None = None) -> Checkpoint:
    """Open the checkpoint at ``path``, with the PEFT adapter in ``adapter`` merged.

    ``path`` is a Hugging Face folder or a GGUF file.  It may be a link to one: what the
    user names is the user's choice.  What is found beside or inside it may not lead out.

    Raises:
        NotACheckpoint: no folder, no config, no tokenizer, no weights.
        LinkOutside: a file in the folder, or another part of a split GGUF, is a link to one
            that is somewhere else.
        PickleRefused: the weights are pickles.
        AdapterUnmerged: the folder holds an adapter, and ``adapter`` is not given.
        UnsupportedArchitecture: no plain decoder.
        UnsupportedScheme: a compression that is not read.
        ShardMissing, ShardCorrupt, TensorMissing, WrongShape: damaged weights.
        OnnxCorrupt, OnnxUnsupported: the graph, where the weights come with one.
        UnreadableGguf, UnsupportedGguf: the GGUF file.
        NotAnAdapter, UnsupportedAdapter, AdapterMisfit: the adapter.
    """
    if path.suffix == ".gguf" and path.is_file():
        checkpoint = _open_gguf(path)
        return checkpoint if adapter is None else _merged(checkpoint, adapter)
    if not path.is_dir():
        raise NotACheckpoint(path, "no such folder")
    refuse_links_out(path)
    if adapter is None and (path / ADAPTER_CONFIG).is_file():
        raise AdapterUnmerged(path)
    config_path = path / "config.json"
    config = read_json(config_path)
    refuse_other_kinds(config_path, config)
    decoder = read_part(DecoderConfig, config, config_path)
    read_json(path / "tokenizer_config.json")
    for name in ("tokenizer.json", *OPTIONAL_FILES):
        _check_size(path / name, optional=name in OPTIONAL_FILES)
    scheme = config.pop("quantization_config", None)
    graph = None if _has_safetensors(path) else _open_graph(path)
    reader = find_reader(scheme, config_path) if scheme is not None and graph is None else None
    files = _weight_files(path) if graph is None else graph.files
    tensors = _open_all(files) if graph is None else graph.weights
    weights: dict[str, Dense | Packed] = {}
    if reader is not None:
        weights |= {weight.name: weight for weight in reader.read(tensors)}
    for name, tensor in tensors.items():
        if name in weights:
            raise WrongShape(tensor.path, name, "is there as floats and as codes")
        weights[name] = _stored(tensor)
    _check_layers(path, decoder, weights)
    label = reader.name if reader is not None else "safetensors" if graph is None else "onnx"
    remarks = reader.remarks if reader is not None else ()
    checkpoint = Checkpoint(
        path,
        label,
        config,
        decoder,
        weights,
        files,
        remarks,
        graph=graph,
        documents=FolderDocuments(path),
    )
    return checkpoint if adapter is None else _merged(checkpoint, adapter)


def _merged(checkpoint: Checkpoint, adapter: Path) -> Checkpoint:
    """``checkpoint`` with the PEFT adapter in the folder ``adapter`` merged into it."""
    if checkpoint.graph is not None:
        raise UnsupportedAdapter(adapter, "merging into an ONNX graph")
    weights = checkpoint.weights
    tied = checkpoint.decoder.tie_word_embeddings or HEAD not in weights
    return replace(
        checkpoint,
        format=f"{checkpoint.format} + LoRA",
        weights=merge_adapter(adapter, weights, tied=tied),
        adapter_files=(adapter / ADAPTER_CONFIG, adapter / ADAPTER_TENSORS),
    )


def _open_gguf(path: Path) -> Checkpoint:
    contents = read_gguf(path)
    decoder = read_part(DecoderConfig, contents.config, path / "config.json")
    _check_layers(path, decoder, contents.weights)
    return Checkpoint(
        path,
        "gguf",
        contents.config,
        decoder,
        contents.weights,
        contents.files,
        documents=contents.documents,
    )


def _check_layers(path: Path, decoder: DecoderConfig, weights: Sized) -> None:
    """Refuse more layers than weights: their graph is declared before a weight is missed."""
    if len(weights) < decoder.num_hidden_layers:
        reason = f"it has {decoder.num_hidden_layers} layers and {len(weights)} weights"
        raise NotACheckpoint(path, reason)


def _adds_nothing(weight: Dense | Packed) -> bool:
    """Whether it is a bias of zeros: AutoGPTQ gave one to linears of every architecture."""
    if not (isinstance(weight, Dense) and weight.name.endswith(".bias")):
        return False
    is_small = len(weight.shape) == 1 and weight.shape[0] <= MAX_WIDTH
    return is_small and not weight.values().any()


def _stored(tensor: StoredTensor) -> Stored:
    """A tensor that no format claimed, so that it must be floats which float32 holds."""
    if not tensor.is_float:
        reason = f"is {tensor.dtype.name}, and no quantization_config says what it means"
        raise WrongShape(tensor.path, tensor.name, reason)
    return Stored(tensor)


def _open_all(files: tuple[Path, ...]) -> dict[str, StoredTensor]:
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in open_safetensors(file).items():
            if name in tensors:
                raise ShardCorrupt(file, f"tensor {name} is in two files")
            tensors[name] = tensor
    return tensors


def _check_size(path: Path, *, optional: bool) -> None:
    """Refuse what is copied into a bundle as it is, but too large to be what its name says."""
    if not path.is_file():
        if optional:
            return
        raise NotACheckpoint(path.parent, f"{path.name} is missing")
    if path.stat().st_size > _MAX_COPIED_BYTES:
        raise NotACheckpoint(path.parent, f"{path.name} is larger than {_MAX_COPIED_BYTES} bytes")


def _has_safetensors(path: Path) -> bool:
    return any((path / name).is_file() for name in (INDEX, SINGLE))


def _open_graph(path: Path) -> OnnxFile | None:
    return open_onnx(path / GRAPH) if (path / GRAPH).is_file() else None


def _weight_files(path: Path) -> tuple[Path, ...]:
    # As transformers does: an index beside it may be left of an older save.
    if (path / SINGLE).is_file():
        return (path / SINGLE,)
    if (path / INDEX).is_file():
        weight_map = read_json(path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise NotACheckpoint(path, f"{INDEX} has no weight_map")
        present = file_names(path)
        for name in weight_map.values():
            if not isinstance(name, str) or name in {".", ".."} or {"/", "\\"} & set(name):
                raise NotACheckpoint(path, f"{INDEX} names a file outside the folder: {name!r}")
            if name not in present:
                raise ShardMissing(path / name, path / INDEX)
        return tuple(path / name for name in dict.fromkeys(weight_map.values()))
    for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt"):
        for pickle in sorted(path.glob(pattern)):
            raise PickleRefused(pickle)
    raise NotACheckpoint(path, f"neither {SINGLE} nor {INDEX} nor {GRAPH} is there")
