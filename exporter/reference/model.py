"""Models in memory: the checkpoint as transformers runs it, and the bundle's weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
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
from exporter.compress.errors import ExtraMissing
from exporter.reference.described import described
from exporter.reference.errors import (
    LedgerMismatch,
    MisreadByKernel,
    NoCuda,
    NotRunnable,
    OutOfMemory,
)
from exporter.reference.own_reading import fill
from exporter.reference.quiet import quiet_libraries
from exporter.reference.weights import bundle_weights
from manifests.bundle import WeightSet
from manifests.reference import ReadBy

DeviceName = Literal["cpu", "cuda"]
DeviceChoice = Literal["auto", "cpu", "cuda"]

#: transformers' factories are untyped.
_AUTO: Any = AutoModelForCausalLM

#: Its models are asked to dequantise themselves after they are loaded.
_BITSANDBYTES = "bitsandbytes"
#: What makes transformers turn a compressed checkpoint's integers into the floats
#: they stand for while it loads, by quant_method.  For a method that is not here it
#: needs libraries that cannot be installed beside ours: exporter.checkpoint reads those.
_DEQUANTISED: MappingProxyType[str, dict[str, Any]] = MappingProxyType(
    {"compressed-tensors": {"dequantize": True}, _BITSANDBYTES: {}}
)

#: compressed-tensors' act-orders that permuted columns, in lower case; ``true`` once meant
#: ``group``, which ``dynamic`` is another word for.
_OLDER_ORDERS = frozenset({"group", "dynamic", "true"})


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
        with described(checkpoint, "config.json") as folder:
            config: PretrainedConfig = AutoConfig.from_pretrained(folder, local_files_only=True)
        MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    except (KeyError, ValueError) as error:
        raise NotRunnable(checkpoint, str(error).splitlines()[0]) from error
    return config


def _attention(config: PretrainedConfig) -> str | None:
    """The library's default, except where it would leave a soft cap of the scores out."""
    return "eager" if getattr(config, "attn_logit_softcapping", None) else None


def read_by(config: PretrainedConfig, adapter: Path | None) -> ReadBy:
    """Whose code makes floats of a checkpoint in :func:`load_checkpoint`."""
    if adapter is not None:
        return "tabwright"
    scheme = getattr(config, "quantization_config", None)
    known = scheme is None or (scheme["quant_method"] in _DEQUANTISED and not _is_older(scheme))
    return "transformers" if known else "tabwright"


def _is_older(scheme: dict[str, Any]) -> bool:
    """Whether it needs what compressed-tensors could do up to 0.12 only."""
    sparsity = (scheme.get("sparsity_config") or {}).get("format", "dense")
    groups = (scheme.get("config_groups") or {}).values()
    orders = {str((group.get("weights") or {}).get("actorder")).lower() for group in groups}
    return sparsity != "dense" or not orders.isdisjoint(_OLDER_ORDERS)


def load_checkpoint(
    checkpoint: Path,
    config: PretrainedConfig,
    dtype: torch.dtype,
    device: DeviceName,
    adapter: Path | None = None,
) -> Any:
    """Load the checkpoint as :func:`read_by` says, its weights dequantised to ``dtype``.

    Activations stay what transformers makes of the checkpoint: compressed-tensors' W8A8
    and FP8 schemes go on rounding them, bitsandbytes' LLM.int8() no longer does.

    Raises:
        TensorMissing: transformers would have made up a weight.
        ExtraMissing: the scheme's own package is not installed.
        MisreadByKernel: that package would get the weights wrong on ``device``.
    """
    if read_by(config, adapter) == "tabwright":
        return fill(without_weights(config, dtype), checkpoint, adapter).to(device).eval()
    scheme = getattr(config, "quantization_config", None)
    by_bitsandbytes = scheme is not None and scheme["quant_method"] == _BITSANDBYTES
    for package in ("accelerate", _BITSANDBYTES) if by_bitsandbytes else ():
        if find_spec(package) is None:
            raise ExtraMissing(package)
    if scheme is not None:
        config.quantization_config = {**scheme, **_DEQUANTISED[scheme["quant_method"]]}
    model = load_weights(
        checkpoint,
        config,
        dtype=dtype,
        attn_implementation=_attention(config),
        **({"device_map": {"": device}} if by_bitsandbytes else {}),
    )
    if by_bitsandbytes:
        _check_blocks(checkpoint, model, device)
        with quiet_libraries():
            model = model.dequantize(dtype=dtype)
    return model.to(device).eval()


def load_weights(checkpoint: Path, config: PretrainedConfig, **arguments: Any) -> Any:
    """Have transformers load the checkpoint; ``arguments`` are more of its own.

    Raises:
        TensorMissing: transformers would have made up a weight.
    """
    with quiet_libraries():
        model, info = _AUTO.from_pretrained(
            checkpoint, config=config, local_files_only=True, output_loading_info=True, **arguments
        )
    for name in sorted(info["missing_keys"]):
        raise TensorMissing(checkpoint, name)
    return model


def _check_blocks(checkpoint: Path, model: Any, device: DeviceName) -> None:
    """Refuse 4-bit blocks that span rows: bitsandbytes 0.50 loses count of them on a CPU."""
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None and device == "cpu" and state.shape[-1] % state.blocksize:
            raise MisreadByKernel(checkpoint, f"{name}.weight", _BITSANDBYTES)


def without_weights(config: PretrainedConfig, dtype: torch.dtype) -> Any:
    """A plain model of ``config``'s architecture whose parameters are still to be filled."""
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with quiet_libraries(), no_init_weights():
        model = _AUTO.from_config(config, dtype=dtype, attn_implementation=_attention(config))
    model.tie_weights()
    return model


def load_bundle(checkpoint: Path, bundle: Path, weights: WeightSet, device: DeviceName) -> Any:
    """Put a bundle's weights into a float32 model of the checkpoint's architecture.

    Raises:
        LedgerMismatch: the ledger's rows are not exactly the model's parameters.
    """
    config = read_config(checkpoint)
    config.tie_word_embeddings = any(row.role == "tied" for row in weights.tensors)
    model = without_weights(config, torch.float32)
    parameters: dict[str, torch.nn.Parameter] = dict(model.named_parameters())
    for row, values in bundle_weights(bundle, weights):
        parameter = parameters.pop(row.name, None)
        if parameter is None:
            raise LedgerMismatch(bundle, row.name, "unknown to the architecture, or there twice")
        shape = row.shape[::-1] if row.transposed else row.shape
        if tuple(parameter.shape) != shape:
            reason = f"{shape} where the architecture has {tuple(parameter.shape)}"
            raise LedgerMismatch(bundle, row.name, reason)
        parameter.data.copy_(torch.from_numpy(values.T if row.transposed else values))
    for name in parameters:
        raise LedgerMismatch(bundle, name, "not in the ledger")
    return model.to(device).eval()
