"""Tensors of safetensors files, read when they are asked for.

The safetensors library has no NumPy reading of float8, so the files are mapped here.
Their headers were checked when the checkpoint was opened.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

_DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
}


class Tensors:
    """By name, each a view of its mapped file: slices of it cost what they hold."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._views: dict[str, NDArray[Any]] = {}
        for path in paths:
            octets = np.memmap(path, np.uint8, "r")
            body = 8 + int(octets[:8].view("<u8")[0])
            header = json.loads(octets[8:body].tobytes())
            header.pop("__metadata__", None)
            for name, entry in header.items():
                if entry["dtype"] in _DTYPES and prod(entry["shape"]):
                    begin, end = (body + offset for offset in entry["data_offsets"])
                    values = octets[begin:end].view(_DTYPES[entry["dtype"]])
                    self._views[name] = values.reshape(entry["shape"])

    def __contains__(self, name: str) -> bool:
        return name in self._views

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._views[name]

    def get(self, name: str) -> NDArray[Any] | None:
        """The tensor, or None."""
        return self._views.get(name)
