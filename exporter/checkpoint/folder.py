"""A Hugging Face checkpoint folder: config, tokenizer, weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter.checkpoint.adapter import Merged, Saved, merge_adapter
from exporter.checkpoint.adapter_config import CONFIG as ADAPTER_CONFIG
from exporter.checkpoint.adapter_config import TENSORS as ADAPTER_TENSORS
from exporter.checkpoint.adapter_config import AdapterUnmerged, UnsupportedAdapter
from exporter.checkpoint.config import DecoderConfig, read_json, read_part
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
from exporter.checkpoint.kinds import refuse_other_kinds
from exporter.checkpoint.safetensors_file import StoredTensor, open_safetensors
from exporter.checkpoint.weights import Dense, Packed, Stored
from manifests.bundle import Source, SourceFile
from manifests.progress import Progress, silent

INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
OPTIONAL_FILES = ("chat_template.jinja", "generation_config.json")
HEAD = "lm_head.weight"
#: Buffers that older versions of transformers saved and every version recomputes.
_DERIVED = ("rotary_emb.inv_freq", "self_attn.bias", "self_attn.masked_bias")
_FLOATS = frozenset({"bfloat16", "float16", "float32"})
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
    """

    path: Path
    format: str
    config: dict[str, Any]
    decoder: DecoderConfig
    weights: dict[str, Dense | Packed]
    weight_files: tuple[Path, ...]
    remarks: tuple[str, ...] = ()
    adapter_files: tuple[Path, ...] = ()

    def weight(self, name: str) -> Dense | Packed:
        """The weight called ``name``.

        Raises:
            TensorMissing: there is none.
        """
        if name not in self.weights:
            raise TensorMissing(self.path, name)
        return self.weights[name]

    def select(self, shapes: Mapping[str, tuple[int, ...]]) -> list[Dense | Packed]:
        """The weights that a graph waits for, in file order.

        Raises:
            TensorMissing: one of ``shapes`` is not in the checkpoint.
            TensorUnknown: the checkpoint has one that is not in ``shapes``.
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
            used = name in shapes or name.endswith(ignored)
            if not used and not _adds_nothing(weight):
                raise TensorUnknown(weight.path, name)
        return [weight for name, weight in self.weights.items() if name in shapes]

    def file(self, name: str) -> Path | None:
        """The path of the file called ``name``, or None when there is none."""
        path = self.path / name
        return path if path.is_file() else None

    def source(self, progress: Progress = silent) -> Source:
        """Digest the files that a bundle is made from."""
        named = ("config.json", *TOKENIZER_FILES, *OPTIONAL_FILES)
        paths = [p for p in (self.file(name) for name in named) if p]
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
    """Open the checkpoint folder at ``path``, with the PEFT adapter in ``adapter`` merged.

    Raises:
        NotACheckpoint: no folder, no config, no tokenizer, no weights.
        PickleRefused: the weights are pickles.
        AdapterUnmerged: the folder holds an adapter, and ``adapter`` is not given.
        UnsupportedArchitecture: no plain decoder.
        UnsupportedScheme: a compression that is not read.
        ShardMissing, ShardCorrupt, TensorMissing, WrongShape: damaged weights.
        NotAnAdapter, UnsupportedAdapter, AdapterMisfit: the adapter.
    """
    if not path.is_dir():
        raise NotACheckpoint(path, "no such folder")
    if adapter is None and (path / ADAPTER_CONFIG).is_file():
        raise AdapterUnmerged(path)
    config_path = path / "config.json"
    config = read_json(config_path)
    refuse_other_kinds(config_path, config)
    decoder = read_part(DecoderConfig, config, config_path)
    for name in TOKENIZER_FILES:
        read_json(path / name)
    scheme = config.pop("quantization_config", None)
    reader = find_reader(scheme, config_path) if scheme is not None else None
    files = _weight_files(path)
    tensors = _open_all(files)
    weights: dict[str, Dense | Packed] = {}
    if reader is not None:
        weights |= {weight.name: weight for weight in reader.read(tensors)}
    for name, tensor in tensors.items():
        if name in weights:
            raise WrongShape(tensor.path, name, "is there as floats and as codes")
        weights[name] = _stored(tensor)
    label = reader.name if reader is not None else "safetensors"
    remarks = reader.remarks if reader is not None else ()
    if adapter is None:
        return Checkpoint(path, label, config, decoder, weights, files, remarks)
    merged = merge_adapter(
        adapter, weights, tied=decoder.tie_word_embeddings or HEAD not in weights
    )
    extra = (adapter / ADAPTER_CONFIG, adapter / ADAPTER_TENSORS)
    return Checkpoint(path, f"{label} + LoRA", config, decoder, merged, files, remarks, extra)


def _adds_nothing(weight: Dense | Packed) -> bool:
    """Whether it is a bias of zeros: AutoGPTQ gave one to linears of every architecture."""
    is_bias = isinstance(weight, Dense) and weight.name.endswith(".bias")
    return is_bias and len(weight.shape) == 1 and not weight.values().any()


def _stored(tensor: StoredTensor) -> Stored:
    """A tensor that no format claimed, so that it must be floats which float32 holds."""
    if tensor.dtype.name not in _FLOATS:
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


def _weight_files(path: Path) -> tuple[Path, ...]:
    if (path / INDEX).is_file():
        weight_map = read_json(path / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise NotACheckpoint(path, f"{INDEX} has no weight_map")
        files = []
        for name in dict.fromkeys(weight_map.values()):
            if not isinstance(name, str) or Path(name).name != name:
                raise NotACheckpoint(path, f"{INDEX} names a file outside the folder: {name!r}")
            if not (path / name).is_file():
                raise ShardMissing(path / name, path / INDEX)
            files.append(path / name)
        return tuple(files)
    if (path / SINGLE).is_file():
        return (path / SINGLE,)
    for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt"):
        for pickle in sorted(path.glob(pattern)):
            raise PickleRefused(pickle)
    raise NotACheckpoint(path, f"neither {SINGLE} nor {INDEX} is there")
