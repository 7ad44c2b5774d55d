"""Models in memory: the checkpoint as transformers runs it, and the bundle's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    PretrainedConfig,
)
from transformers.initialization import no_init_weights

from exporter.checkpoint.errors import TensorMissing
from exporter.reference.errors import LedgerMismatch, NoCuda, NotRunnable, OutOfMemory
from exporter.reference.quiet import quiet_libraries
from exporter.reference.weights import bundle_weights
from manifests.bundle import WeightSet

DeviceName = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]

#: transformers' factories are untyped.
_AUTO: Any = AutoModelForCausalLM

#: What makes transformers turn a compressed checkpoint's integers into the floats
#: they stand for while it loads, by quant_method.
_DEQUANTISED: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {"compressed-tensors": {"dequantize": True}}
)


def choose_device(choice: DeviceChoice) -> DeviceName:
    """CUDA where there is one and it is not declined.

    Raises:
        NoCuda: it was asked for and is not there.
    """
    found = torch.cuda.is_available()
    if choice == "cuda" and not found:
        raise NoCuda
    return "cuda" if found and choice != "cpu" else "cpu"


@contextmanager
def memory_errors_named(checkpoint: Path, device: DeviceName) -> Iterator[None]:
    """Turn torch's ways of running out of memory into :class:`OutOfMemory`."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise OutOfMemory(checkpoint, device) from error
    except RuntimeError as error:
        # torch's CPU allocator has no exception type of its own.
        if "not enough memory" not in str(error):
            raise
        raise OutOfMemory(checkpoint, device) from error


def read_config(checkpoint: Path) -> PretrainedConfig:
    """Read the config, and import the code of its architecture.

    Raises:
        NotRunnable: transformers has no causal language model for it.
    """
    try:
        config: PretrainedConfig = AutoConfig.from_pretrained(checkpoint, local_files_only=True)
        MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except (KeyError, ValueError) as error:
        raise NotRunnable(checkpoint, str(error).splitlines()[0]) from error
    return config


def load_checkpoint(
    checkpoint: Path, config: PretrainedConfig, dtype: torch.dtype, device: DeviceName
) -> Any:
    """Load the checkpoint through transformers, its weights dequantised to ``dtype``.

    Raises:
        TensorMissing: transformers would have made up a weight.
    """
    scheme = getattr(config, "quantization_config", None)
    if scheme is not None:
        config.quantization_config = {**scheme, **_DEQUANTISED[scheme["quant_method"]]}
    with quiet_libraries():
        model, info = _AUTO.from_pretrained(
            checkpoint,
            config=config,
            dtype=dtype,
            local_files_only=True,
            output_loading_info=True,
        )
    for name in sorted(info["missing_keys"]):
        raise TensorMissing(checkpoint, name)
    return model.to(device).eval()


def load_bundle(checkpoint: Path, bundle: Path, weights: WeightSet, device: DeviceName) -> Any:
    """Put a bundle's weights into a float32 model of the checkpoint's architecture.

    Raises:
        LedgerMismatch: the ledger's rows are not exactly the model's parameters.
    """
    config = read_config(checkpoint)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    config.tie_word_embeddings = any(row.role == "tied" for row in weights.tensors)
    with quiet_libraries(), no_init_weights():
        model = _AUTO.from_config(config, dtype=torch.float32)
    model.tie_weights()
    parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
    for row, values in bundle_weights(bundle, weights):
        parameter = parameters.pop(row.name, None)
        if parameter is None:
            raise LedgerMismatch(bundle, row.name, "unknown to the architecture, or there twice")
        if tuple(parameter.shape) != row.shape:
            reason = f"{row.shape} where the architecture has {tuple(parameter.shape)}"
            raise LedgerMismatch(bundle, row.name, reason)
        parameter.data.copy_(torch.from_numpy(values))
    for name in parameters:
        raise LedgerMismatch(bundle, name, "not in the ledger")
    return model.to(device).eval()
