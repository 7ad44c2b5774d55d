"""LoRA adapters as PEFT writes them, merged into the weights of their base.

W' = W + s B A with s = alpha / r, or alpha / sqrt(r) for rsLoRA (Hu et al., 2021;
Kalajdzievski, 2023); DoRA (Liu et al., 2024) then scales each row of W' to a learnt
length.  The tensors decide which modules are merged; ``adapter_config.json`` is held
against them.  Whatever else it turns on is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporter.checkpoint.adapter_config import (
    CONFIG,
    TENSORS,
    AdapterMisfit,
    LoraConfig,
    NotAnAdapter,
    UnsupportedAdapter,
    by_module,
    names_one,
    read_config,
)
from exporter.checkpoint.errors import PickleRefused, TensorMissing
from exporter.checkpoint.inside import refuse_links_out
from exporter.checkpoint.safetensors_file import StoredTensor, open_safetensors
from exporter.checkpoint.weights import Dense, Packed, Stored, packed_rows

_PICKLE = "adapter_model.bin"
_PREFIX = "base_model.model."
_LORA_A, _LORA_B = ".lora_A.weight", ".lora_B.weight"
_MAGNITUDE = ".lora_magnitude_vector"
_EMBEDDED = (".lora_embedding_A", ".lora_embedding_B")
_TIED = ("lm_head", "embed_tokens")


@dataclass(frozen=True)
class Merged(Dense):
    """A matrix [N, K] of the base with its update; A is [r, K], B is [N, r].

    The sum is made in float64 and rounded to float32 once, so that it does not depend
    on the order in which a matrix library adds.
    """

    base: Dense | Packed
    a: StoredTensor
    b: StoredTensor
    scaling: float
    magnitude: StoredTensor | None

    @property
    def name(self) -> str:
        """The base's weight name."""
        return self.base.name

    @property
    def path(self) -> Path:
        """The adapter's file: what is wrong with the sum is most likely its doing."""
        return self.a.path

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape [N, K]."""
        return self.base.shape

    @property
    def scheme(self) -> str:
        """How the base is kept, and what was added."""
        method = "LoRA" if self.magnitude is None else "DoRA"
        return f"{self.base.scheme} + {method} r={self.a.shape[0]}"

    def rows(self, start: int, stop: int) -> NDArray[np.float32]:
        """Merged values of rows ``start:stop``, float32; not finite where the sum is not."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            update = self.b.read_rows(start, stop).astype(np.float64) @ self.a.read().astype(
                np.float64
            )
            update *= self.scaling
            update += _base_rows(self.base, start, stop)
            if self.magnitude is not None:
                length = np.linalg.norm(update, axis=1)
                learnt = self.magnitude.read_rows(start, stop).astype(np.float64)
                update *= (learnt / length)[:, None]
            return update.astype(np.float32)


@dataclass(frozen=True)
class Saved(Stored):
    """A whole tensor (``modules_to_save``) that takes the place of the base's."""

    replaces: str

    @property
    def name(self) -> str:
        """The base's weight name."""
        return self.replaces

    @property
    def scheme(self) -> str:
        """The file's dtype, and that it is the adapter's."""
        return f"{self.stored.dtype.name} of the adapter"


def merge_adapter(
    folder: Path, weights: Mapping[str, Dense | Packed], *, tied: bool
) -> dict[str, Dense | Packed]:
    """The weights of a base with the adapter in ``folder`` merged; reads headers only.

    ``tied``: the head is the embedding, so neither can change alone.

    Raises:
        NotAnAdapter, LinkOutside, PickleRefused, ShardCorrupt: the adapter's files.
        UnsupportedAdapter: a setting or tensor that is not merged.
        AdapterMisfit, TensorMissing: the adapter does not fit the base or its config.
    """
    if folder.is_dir():
        refuse_links_out(folder)
    config = read_config(folder / CONFIG)
    tensors = _open(folder)
    merged = dict(weights)
    for module in _modules(folder, tensors):
        if tied and module.endswith(_TIED):
            raise UnsupportedAdapter(folder, f"changing {module} of a model with a tied head")
        merged[f"{module}.weight"] = _merge(module, config, tensors, weights)
    for name in tensors:
        weight = _saved(folder, name, config, tensors[name], weights)
        if tied and weight.name.removesuffix(".weight").endswith(_TIED):
            raise UnsupportedAdapter(folder, f"replacing {weight.name} of a model with a tied head")
        merged[weight.name] = weight
    for module in _targets(config, weights):
        if not isinstance(merged[f"{module}.weight"], Merged):
            raise TensorMissing(folder / TENSORS, f"{_PREFIX}{module}{_LORA_A}")
    return merged


def _open(folder: Path) -> dict[str, StoredTensor]:
    path = folder / TENSORS
    if not path.is_file():
        if (folder / _PICKLE).exists():
            raise PickleRefused(folder / _PICKLE)
        raise NotAnAdapter(folder, f"{TENSORS} is missing")
    tensors = open_safetensors(path)
    for name, tensor in tensors.items():
        if name.endswith(_EMBEDDED):
            raise UnsupportedAdapter(path, f"LoRA of an embedding ({name})")
        if not name.startswith(_PREFIX):
            raise AdapterMisfit(path, name, f"its name does not start with {_PREFIX}")
        if not tensor.is_float:
            raise AdapterMisfit(path, name, f"is {tensor.dtype.name}, not a float of 16 or 32 bits")
    return tensors


def _modules(folder: Path, tensors: Mapping[str, StoredTensor]) -> list[str]:
    """Modules with an update, from tensors that name A or B."""
    names = [name for name in tensors if name.endswith((_LORA_A, _LORA_B))]
    modules = dict.fromkeys(
        name.removeprefix(_PREFIX).removesuffix(_LORA_A).removesuffix(_LORA_B) for name in names
    )
    for module in modules:
        for part in (_LORA_A, _LORA_B):
            if f"{_PREFIX}{module}{part}" not in tensors:
                raise TensorMissing(folder / TENSORS, f"{_PREFIX}{module}{part}")
    return list(modules)


def _merge(
    module: str,
    config: LoraConfig,
    tensors: dict[str, StoredTensor],
    weights: Mapping[str, Dense | Packed],
) -> Merged:
    """Take one module's tensors out of ``tensors``."""
    a = tensors.pop(f"{_PREFIX}{module}{_LORA_A}")
    b = tensors.pop(f"{_PREFIX}{module}{_LORA_B}")
    base = weights.get(f"{module}.weight")
    if base is None or len(base.shape) != 2:
        raise AdapterMisfit(a.path, a.name, f"the base model has no linear {module}")
    rank = by_module(config.rank_pattern, module, config.r)
    rows, columns = base.shape
    _expect(a, (rank, columns))
    _expect(b, (rows, rank))
    magnitude = None
    if config.use_dora:
        name = f"{_PREFIX}{module}{_MAGNITUDE}"
        if name not in tensors:
            raise TensorMissing(a.path, name)
        magnitude = _expect(tensors.pop(name), (rows,))
    alpha = by_module(config.alpha_pattern, module, config.lora_alpha)
    return Merged(base, a, b, alpha / (sqrt(rank) if config.use_rslora else rank), magnitude)


def _saved(
    folder: Path,
    name: str,
    config: LoraConfig,
    tensor: StoredTensor,
    weights: Mapping[str, Dense | Packed],
) -> Saved:
    weight = name.removeprefix(_PREFIX)
    module = weight.rpartition(".")[0]
    if not config.modules_to_save or not module.endswith(config.modules_to_save):
        raise AdapterMisfit(folder / TENSORS, name, f"{CONFIG} does not account for it")
    if weight not in weights:
        raise AdapterMisfit(folder / TENSORS, name, f"the base model has no {weight}")
    return Saved(_expect(tensor, weights[weight].shape), weight)


def _targets(config: LoraConfig, weights: Mapping[str, Dense | Packed]) -> list[str]:
    """Modules that the config promises an update for; none where it is an expression."""
    wanted, excluded = config.target_modules, config.exclude_modules or ()
    if wanted is None or isinstance(wanted, str) or isinstance(excluded, str):
        return []
    named, others = frozenset(wanted), frozenset(excluded)
    layers = config.layers_to_transform
    chosen = None if layers is None else {layers} if isinstance(layers, int) else set(layers)
    found = []
    for name, weight in weights.items():
        module, _, part = name.rpartition(".")
        if part != "weight" or len(weight.shape) != 2:
            continue
        layer = next(
            (int(step) for step in module.split(".") if re.fullmatch("[0-9]{1,4}", step)), None
        )
        in_layer = chosen is None or layer in chosen
        if in_layer and names_one(module, named) and not names_one(module, others):
            found.append(module)
    return found


def _expect(tensor: StoredTensor, shape: tuple[int, ...]) -> StoredTensor:
    if tensor.shape != shape:
        reason = f"shape {list(tensor.shape)}, the base and {CONFIG} ask for {list(shape)}"
        raise AdapterMisfit(tensor.path, tensor.name, reason)
    return tensor


def _base_rows(base: Dense | Packed, start: int, stop: int) -> NDArray[np.float32]:
    if isinstance(base, Dense):
        return base.rows(start, stop)
    # Packed rows are read from a multiple of row_multiple.
    first = start // base.row_multiple * base.row_multiple
    last = min(-(-stop // base.row_multiple) * base.row_multiple, base.shape[0])
    values = packed_rows(base, base.scales(), base.zero_points(), first, last)
    return values[start - first : stop - first]
