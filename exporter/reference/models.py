"""What a reference runs: the checkpoint, and each of a bundle's weight sets.

A checkpoint is run by transformers.  One that comes with an ONNX graph has no PyTorch
model to be asked: its own graph is, in onnxruntime.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from exporter.checkpoint import Checkpoint
from exporter.checkpoint.folder import GRAPH
from exporter.checkpoint.onnx_file import OnnxFile
from exporter.reference.errors import LedgerMismatch, OnnxOnCpu
from exporter.reference.model import (
    DeviceChoice,
    DeviceName,
    choose_device,
    load_bundle,
    load_checkpoint,
    read_by,
    read_config,
)
from exporter.reference.onnx_model import OnnxDecoder
from exporter.reference.weights import Floats, bundle_weights
from manifests.bundle import WeightSet
from manifests.reference import ReadBy


class Models(Protocol):
    """Models that are called as transformers' are.

    Attributes:
        device: where they run.
        read_by: whose code makes floats of the checkpoint.
        dtype: the checkpoint's own.
    """

    device: DeviceName
    read_by: ReadBy
    dtype: torch.dtype

    def checkpoint(self, dtype: torch.dtype) -> Any:
        """The checkpoint, its weights as floats of ``dtype``."""
        ...

    def bundle(self, bundle: Path, weights: WeightSet) -> Any:
        """The same model with a bundle's weights, in float32.

        Raises:
            LedgerMismatch: the ledger's rows are not exactly the model's parameters.
        """
        ...


class TorchModels:
    """transformers' model of the checkpoint's architecture."""

    def __init__(self, path: Path, choice: DeviceChoice, adapter: Path | None) -> None:
        self.device = choose_device(choice)
        config = read_config(path)
        self.read_by = read_by(config, adapter)
        self.dtype = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
        self._path, self._adapter = path, adapter

    def checkpoint(self, dtype: torch.dtype) -> Any:
        """See :class:`Models`."""
        # Loading changes the config that it is given.
        config = read_config(self._path)
        return load_checkpoint(self._path, config, dtype, self.device, self._adapter)

    def bundle(self, bundle: Path, weights: WeightSet) -> Any:
        """See :class:`Models`."""
        return load_bundle(self._path, bundle, weights, self.device)


@dataclass
class OnnxModels:
    """The graph that the checkpoint's weights came with."""

    path: Path
    graph: OnnxFile
    device: DeviceName = "cpu"
    read_by: ReadBy = "onnxruntime"
    dtype: torch.dtype = torch.float32

    def checkpoint(self, dtype: torch.dtype) -> Any:
        """See :class:`Models`; the graph computes in the floats it was written for."""
        del dtype
        return OnnxDecoder(self.path)

    def bundle(self, bundle: Path, weights: WeightSet) -> Any:
        """See :class:`Models`."""
        used = {name for node in self.graph.proto.graph.node for name in node.input}
        missing = {name: tensor for name, tensor in self.graph.weights.items() if name in used}
        values: dict[str, Floats] = {}
        for row, stored in bundle_weights(bundle, weights):
            tensor = missing.pop(row.name, None)
            if tensor is None:
                raise LedgerMismatch(bundle, row.name, "unknown to the graph, or there twice")
            values[row.name] = stored.T if row.transposed else stored
            if values[row.name].shape != tensor.shape:
                reason = f"{values[row.name].shape} where the graph has {tensor.shape}"
                raise LedgerMismatch(bundle, row.name, reason)
        tied = next((row.name for row in weights.tensors if row.role == "tied"), None)
        for name, tensor in missing.items():
            # The file holds a tied head a second time, as [K, N].
            if tied is None or values[tied].T.shape != tensor.shape:
                raise LedgerMismatch(bundle, name, "not in the ledger")
            values[name] = values[tied].T
        return OnnxDecoder(
            self.path,
            [
                (name, np.ascontiguousarray(each, self.graph.weights[name].dtype))
                for name, each in values.items()
            ],
        )


def models_of(
    path: Path, checkpoint: Checkpoint, choice: DeviceChoice, adapter: Path | None
) -> Models:
    """The models of the checkpoint that was opened at ``path``.

    Raises:
        NoCuda, OnnxOnCpu: ``choice`` cannot be had.
        NotRunnable: transformers has no causal language model for it.
    """
    if checkpoint.graph is None:
        return TorchModels(path, choice, adapter)
    if choice == "cuda":
        raise OnnxOnCpu(path)
    return OnnxModels(path / GRAPH, checkpoint.graph)
