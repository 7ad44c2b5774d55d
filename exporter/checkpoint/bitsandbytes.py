"""bitsandbytes' LLM.int8() and NF4, as transformers saves them.

LLM.int8(): ``weight`` int8 [N, K] and ``SCB`` float32 [N], each row's largest magnitude,
so that the scale is SCB / 127.  NF4: ``weight`` uint8 [N * K / 2, 1], two codes a byte,
the first in the high nibble; ``weight.quant_map`` float32 [16], what the codes stand for;
``weight.absmax``, one factor per block of the flattened matrix; and
``weight.quant_state.bitsandbytes__nf4``, JSON as bytes.  Double quantisation keeps absmax
as uint8, with a map, factors and an offset of its own under ``nested_`` names.  Read from
https://github.com/bitsandbytes-foundation/bitsandbytes and verified against its kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field, FiniteFloat

from exporter.checkpoint import strict_json
from exporter.checkpoint.config import Part, read_part
from exporter.checkpoint.errors import UnsupportedScheme, WrongShape
from exporter.checkpoint.int8 import Int8
from exporter.checkpoint.nf4 import DTYPES, Nested, Nf4
from exporter.checkpoint.packing import take
from exporter.checkpoint.safetensors_file import StoredTensor
from exporter.checkpoint.scales import scales_of

_SCB = ".SCB"
_STATE = ".weight.quant_state.bitsandbytes__"
#: A quant_state is some hundred bytes.
_MAX_STATE_BYTES = 1 << 16
_INT8_REMARK = (
    "LLM.int8() rounds activations to 8 bits as it runs, outlier features excepted: "
    "the bundle has its weights, and floats for all activations"
)
_NF4_REMARK = (
    "NF4's 16 values are unevenly spaced, so every target rounds them a second time: choose one "
    "of 8 bits (webgpu-q8, wasm-q8); in SmolLM2-135M these round by up to 0.66 % and leave the "
    "perplexity at 19.6, 4-bit ones by 9.48 % and take it from 19.5 to 96.7 (docs/study.md); the "
    "ledger has the errors"
)

_BlockSize = Annotated[int, Field(ge=1, le=1 << 20)]
_Dimension = Annotated[int, Field(ge=1, le=1 << 24)]


class _Config(Part):
    load_in_8bit: bool = False
    load_in_4bit: bool = False
    bnb_4bit_quant_type: str = "fp4"


class _State(Part):
    """What quant_state says."""

    quant_type: str = "nf4"
    blocksize: _BlockSize
    dtype: str
    shape: tuple[_Dimension, _Dimension]
    nested_blocksize: _BlockSize | None = None
    nested_offset: FiniteFloat | None = None


class BitsAndBytes:
    """The format, as :class:`exporter.checkpoint.formats.Reader` asks.

    Raises:
        UnsupportedScheme: 4-bit values other than NF4.
    """

    name = "bitsandbytes"

    def __init__(self, config: object, path: Path) -> None:
        read = read_part(_Config, config, path, "quantization_config")
        if read.load_in_4bit and read.bnb_4bit_quant_type != "nf4":
            raise UnsupportedScheme(path, f"bitsandbytes {read.bnb_4bit_quant_type}")
        kinds = ((read.load_in_8bit, _INT8_REMARK), (read.load_in_4bit, _NF4_REMARK))
        self.remarks = tuple(remark for used, remark in kinds if used)

    def read(self, tensors: dict[str, StoredTensor]) -> Iterator[Int8 | Nf4]:
        """Take every compressed linear out of ``tensors``."""
        for key in [name for name in tensors if name.endswith(_SCB)]:
            yield _int8(key.removesuffix(_SCB), tensors)
        for key in [name for name in tensors if _STATE in name]:
            module, _, kind = key.partition(_STATE)
            if kind != "nf4":
                raise UnsupportedScheme(tensors[key].path, f"bitsandbytes {kind} (of {module})")
            yield _nf4(module, tensors.pop(key), tensors)


def _int8(module: str, tensors: dict[str, StoredTensor]) -> Int8:
    scale = tensors.pop(f"{module}{_SCB}")
    weight = take(tensors, scale.path, f"{module}.weight")
    layout = tensors.pop(f"{module}.weight_format", None)
    # 0 is rows; the others are tilings for kernels that bitsandbytes has dropped.
    if layout is not None and (layout.nbytes != 1 or layout.read().item() != 0):
        raise UnsupportedScheme(layout.path, f"bitsandbytes int8 in tiles ({module})")
    return Int8(weight, scales_of(weight, scale, divisor=127), None, "bitsandbytes")


def _nf4(module: str, packed_state: StoredTensor, tensors: dict[str, StoredTensor]) -> Nf4:
    name = f"{module}.weight"
    state = _read_state(packed_state)
    if state.quant_type != "nf4":
        raise UnsupportedScheme(packed_state.path, f"bitsandbytes {state.quant_type} (of {module})")
    weight = take(tensors, packed_state.path, name)
    if weight.dtype != np.uint8:
        raise UnsupportedScheme(weight.path, f"bitsandbytes nf4 stored as {weight.dtype} ({name})")
    rows, columns = state.shape
    if columns % 2:
        raise WrongShape(weight.path, name, f"rows of {columns} values end inside a byte")
    weight.expect((rows * columns // 2, 1))
    blocks = -(-rows * columns // state.blocksize)
    levels = _expect(take(tensors, weight.path, f"{name}.quant_map"), (16,), np.float32)
    absmax = take(tensors, weight.path, f"{name}.absmax")
    nested = None
    if state.nested_blocksize is None or state.nested_offset is None:
        _expect(absmax, (blocks,), np.float32)
    else:
        _expect(absmax, (blocks,), np.uint8)
        size = state.nested_blocksize
        factors = take(tensors, weight.path, f"{name}.nested_absmax")
        nested_levels = take(tensors, weight.path, f"{name}.nested_quant_map")
        nested = Nested(
            levels=_expect(nested_levels, (256,), np.float32).read(),
            absmax=_expect(factors, (-(-blocks // size),), np.float32),
            block_size=size,
            offset=state.nested_offset,
        )
    return Nf4(weight, state.shape, levels.read(), absmax, state.blocksize, state.dtype, nested)


def _read_state(tensor: StoredTensor) -> _State:
    if tensor.dtype != np.uint8 or tensor.nbytes > _MAX_STATE_BYTES:
        raise WrongShape(tensor.path, tensor.name, "is no JSON in uint8")
    try:
        value = strict_json.parse(tensor.read().tobytes())
    except ValueError as error:
        raise WrongShape(tensor.path, tensor.name, f"is not JSON: {error}") from None
    state = read_part(_State, value, tensor.path, tensor.name)
    if state.dtype not in DTYPES:
        raise WrongShape(tensor.path, tensor.name, f"gives unknown dtype {state.dtype!r}")
    return state


def _expect(tensor: StoredTensor, shape: tuple[int, ...], dtype: type[Any]) -> StoredTensor:
    if tensor.expect(shape).dtype != dtype:
        reason = f"is {tensor.dtype}, expected {np.dtype(dtype)}"
        raise WrongShape(tensor.path, tensor.name, reason)
    return tensor
