"""What is studied, and what is found out, as data."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from pydantic import Field

from exporter.compress.chain import Compression
from manifests.base import Schema


@dataclass(frozen=True)
class Row:
    """A way to compress, and where the result is run.

    Attributes:
        methods: of ``tabwright compress``; none for the checkpoint as it is.
        options: fields of :class:`exporter.compress.recipes.Settings`.
        before: name of the row whose checkpoint is compressed instead of the original.
        targets: of the export.  A checkpoint of 16-bit floats is rounded for any of them.
    """

    name: str
    title: str
    methods: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    before: str | None = None
    targets: tuple[str, ...] = ("wasm-q4",)


_Q8 = ("wasm-q8",)

ROWS: MappingProxyType[str, Row] = MappingProxyType(
    {
        row.name: row
        for row in (
            Row("bf16", "bfloat16, not compressed", targets=("wasm-q8", "wasm-q4")),
            Row("w4a16-rtn", "W4A16, rounded to nearest", ("w4a16-rtn",)),
            Row("nf4", "NF4 (bitsandbytes)", ("nf4",), targets=("wasm-q8", "wasm-q4")),
            Row("int8", "LLM.int8() (bitsandbytes)", ("int8",), targets=_Q8),
            Row("fp8", "FP8", ("fp8",), targets=_Q8),
            Row("wanda", "Wanda 50 %", ("wanda",)),
            Row("wanda-2-4", "Wanda 2:4", ("wanda",), {"mask_structure": "2:4"}),
            Row("wanda-owl", "Wanda 50 %, OWL", ("wanda",), {"sparsity_profile": "owl"}),
            Row("w4a16", "W4A16, GPTQ", ("w4a16",)),
            Row("w8a16", "W8A16, GPTQ", ("w8a16",), targets=_Q8),
            Row("w8a8", "W8A8, SmoothQuant and GPTQ", ("w8a8",), targets=_Q8),
            Row("wanda-w4a16", "Wanda 50 %, then W4A16 (GPTQ)", ("w4a16",), before="wanda"),
            Row("sparsegpt", "SparseGPT 50 %", ("sparsegpt",)),
            Row("sparsegpt-2-4", "SparseGPT 2:4", ("sparsegpt",), {"mask_structure": "2:4"}),
            Row(
                "sparsegpt-w4a16",
                "SparseGPT 50 %, then W4A16 (GPTQ)",
                ("w4a16",),
                before="sparsegpt",
            ),
        )
    }
)


class Scores(Schema):
    """Of one set of weights, by language.

    ``perplexity`` is exp(mean NLL) over ``positions`` predicted tokens; ``agreement`` the
    share of positions where the most likely token is the uncompressed model's in PyTorch.
    """

    positions: dict[str, int]
    perplexity: dict[str, float]
    agreement: dict[str, float]


class InBrowser(Scores):
    """A target's scores in ``browser``, and the sizes in the manifest that a load of it adds up."""

    download_bytes: int
    browser: str


class Proof(Schema):
    """What ``tabwright verify --against`` found of the exported weights."""

    exact: int
    requantised: int
    codes_compared: int
    largest_rms: float


class Result(Schema):
    """One row of one model: all of it, or why there is none.

    ``key`` digests what decides it.  ``machine``, ``date`` (of UTC, on which it was there) and
    ``versions`` (of packages) are of the run that found it; an old row may lack them.
    """

    model: str
    row: str
    key: str
    machine: str | None = None
    date: dt.date | None = None
    versions: dict[str, str] = Field(default_factory=dict)
    failure: str | None = None
    weights_bytes: int | None = None
    ratio: float | None = None
    compression: Compression | None = None
    pytorch: Scores | None = None
    browser: dict[str, InBrowser] = Field(default_factory=dict)
    proof: dict[str, Proof] = Field(default_factory=dict)
    seconds: float


class Study(Schema):
    """Every result there is, and how many windows of each language a model was scored on."""

    windows: dict[str, dict[str, int]]
    results: tuple[Result, ...]
