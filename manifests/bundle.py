"""``manifest.json``: what a bundle is, and the proof of what is in it.

The manifest is written last; its presence means that the bundle is whole.
``seal`` guards the manifest itself: it is the SHA-256 of the file's own bytes
with the 64 digits of the seal replaced by zeros, which both Python and the page
can compute without agreeing on a canonical form of numbers.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from manifests.base import Schema
from manifests.errors import BadInput

MANIFEST_NAME = "manifest.json"
MANIFEST_VERSION: Literal[1] = 1

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: A path inside the bundle: relative, forward slashes; no part is empty or starts
#: with a dot, so none can climb out.
BundlePath = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]*(?:/[A-Za-z0-9][A-Za-z0-9_.\-]*)*$")
]
Bytes = Annotated[int, Field(ge=0)]
StateAxis = Annotated[int, Field(ge=1, le=1 << 20)] | Literal["batch_size", "past_sequence_length"]

_SEAL = re.compile(rb'"seal": "([0-9a-f]{64})"')
_ZEROS = b"0" * 64


class SealBroken(BadInput):
    """The manifest's own bytes were changed after sealing."""

    code = "seal-broken"

    def __init__(self, path: Path) -> None:
        super().__init__(
            f"{path}: the seal does not match: the manifest was changed", "export again"
        )


class File(Schema):
    """One file of the bundle.

    ``chunks`` holds the SHA-256 of each ``chunk_size`` bytes (the last may be
    shorter), so that a download is verified and resumed chunk by chunk.
    """

    path: BundlePath
    media_type: str
    size: Bytes
    sha256: Sha256
    chunks: tuple[Sha256, ...]


class Range(Schema):
    """Where a tensor's bytes lie: ``length`` bytes at ``offset`` of ``file``."""

    file: BundlePath
    offset: Bytes
    length: Bytes


class Rounding(Schema):
    """The error that a second rounding made.

    ``rms`` is ||stored - source|| / ||source|| (Frobenius); ``max`` is the
    largest |stored - source| divided by the largest |source|.
    """

    rms: float
    max: float


class Zeros(Schema):
    """The share of a matrix's values that are exactly zero, before and after.

    ``pattern`` is ``2:4`` when, as stored, every four neighbours along K (the first
    starts each row) hold at least two zeros.
    """

    source: float
    stored: float
    pattern: Literal["2:4"] | None = None


#: What a tensor is stored as: fields of :class:`Tensor`.
Part = Literal["codes", "scales", "zero_points", "permutation", "values"]


class Tensor(Schema):
    """A row of the ledger: one source tensor and how it lies in the bundle.

    A quantised tensor of ``shape`` [N, K] is stored as unsigned codes, row by
    row, low bits first, so that ``value = (code - zero_point) * scale`` with one
    scale per ``block_size`` codes along K: the layout that com.microsoft's
    MatMulNBits and ONNX's blocked DequantizeLinear share.  ``zero_points`` is
    absent when every one of them is ``2**(bits-1)``.  Where ``permutation`` is
    there, int32 [K], column ``j`` of the codes is column ``permutation[j]`` of the
    tensor: the graph permutes the activations instead.  A float tensor has
    ``values`` only.
    """

    name: str
    role: Literal["linear", "embedding", "head", "tied", "float"]
    shape: tuple[int, ...]
    source: str = Field(description="the scheme it had, e.g. 'int4 g32 symmetric' or 'bfloat16'")
    transposed: Literal[True] | None = Field(
        None, description="the source holds the transpose of ``shape``"
    )
    outcome: Literal["exact", "requantised"] = Field(
        description="exact: every stored value equals the source's value bit for bit"
    )
    rounding: Rounding | None = None
    zeros: Zeros | None = None
    bits: int | None = None
    block_size: int | None = None
    codes: Range | None = None
    scales: Range | None = None
    scale_dtype: Literal["float16", "float32"] | None = None
    zero_points: Range | None = None
    permutation: Range | None = None
    values: Range | None = None
    value_dtype: Literal["float16", "float32"] | None = None

    def parts(self) -> tuple[tuple[Part, Range], ...]:
        """Everything that it is stored as."""
        parts: tuple[tuple[Part, Range | None], ...] = (
            ("codes", self.codes),
            ("scales", self.scales),
            ("zero_points", self.zero_points),
            ("permutation", self.permutation),
            ("values", self.values),
        )
        return tuple((name, place) for name, place in parts if place is not None)

    @property
    def stored_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(place.length for _, place in self.parts())

    @property
    def packed_bytes(self) -> int:
        """What the page's kernel for products on a CPU reads: codes, and scales in float32.

        Stored zero points become a byte each.
        """
        codes, scales = self.codes, self.scales
        assert codes is not None
        assert scales is not None
        count = scales.length // (2 if self.scale_dtype == "float16" else 4)
        return codes.length + 4 * count + (count if self.zero_points else 0)

    @property
    def heap_bytes(self) -> int:
        """What it takes on a CPU, once loaded.

        An embedding's rows are gathered from what is stored; a tied matrix is there in
        both ways.
        """
        match self.role:
            case "float" | "embedding":
                return self.stored_bytes
            case "tied":
                return self.stored_bytes + self.packed_bytes
        return self.packed_bytes + (self.permutation.length if self.permutation else 0)


class WeightSet(Schema):
    """Shards that several targets share, and the ledger of what is in them."""

    shards: tuple[BundlePath, ...]
    digest: Sha256 = Field(description="SHA-256 over the shards' digests, in order")
    tensors: tuple[Tensor, ...]


class State(Schema):
    """A tensor that a graph hands from one call to the next.

    What ``output`` gives is fed to ``input`` of the next call.  The first call gets zeros
    of ``shape``, where ``batch_size`` is 1 and ``past_sequence_length`` the number of
    positions fed so far, which is 0: a KV cache starts empty and grows, a state of plain
    numbers keeps its size.
    """

    input: str
    output: str
    dtype: Literal["float16", "float32"]
    shape: tuple[StateAxis, ...]


class TargetEntry(Schema):
    """What one target loads, and what the device must offer for it."""

    graph: BundlePath
    resident_graph: BundlePath | None = Field(
        None, description="over the same weights, for a decode loop that stays on the GPU"
    )
    weights: str = Field(description="key in the manifest's `weights`")
    execution_provider: Literal["webgpu", "wasm"]
    activation_dtype: Literal["float16", "float32"]
    states: tuple[State, ...]
    features: tuple[str, ...] = Field(description="GPU features without which it cannot run")
    limits: dict[str, int] = Field(description="least GPU limits, by WebGPU's names")
    session_config: dict[str, str] = Field(
        description="onnxruntime session configuration entries, e.g. session.disable_quant_qdq"
    )
    weight_bytes: Bytes | None = Field(None, description="the weights in memory, once loaded")


class Model(Schema):
    """What the runtime must know to feed the graph."""

    name: str
    architecture: str
    model_type: str
    parameters: int
    vocab_size: int
    layers: int
    context_length: int
    bos_token_id: int | None = None
    eos_token_ids: tuple[int, ...]


class SourceFile(Schema):
    """A file of the checkpoint that the bundle was made from."""

    path: str
    size: Bytes
    sha256: Sha256


class Source(Schema):
    """The checkpoint, so that a reference made from another one is refused."""

    format: str
    files: tuple[SourceFile, ...]
    digest: Sha256 = Field(description="SHA-256 over the files' names and digests, in order")
    remarks: tuple[str, ...] = Field(
        (), description="what the checkpoint's scheme asks for that the bundle does not do"
    )


class Manifest(Schema):
    """The whole bundle."""

    format: Literal["tabwright-bundle"] = "tabwright-bundle"
    version: Literal[1] = MANIFEST_VERSION
    model: Model
    source: Source
    chunk_size: Annotated[int, Field(ge=1, le=1 << 30)]
    files: tuple[File, ...]
    targets: dict[str, TargetEntry]
    weights: dict[str, WeightSet]
    tokenizer: BundlePath
    tokenizer_config: BundlePath
    chat_template: BundlePath | None = None
    generation_config: BundlePath | None = None
    tools: dict[str, str]
    seal: Sha256 = "0" * 64
    self_check: BundlePath | None = Field(
        None, description="logits that every device must come to, see manifests/self_check.py"
    )

    @model_validator(mode="after")
    def _holds_together(self) -> Self:
        """Every name leads to a file, and every range lies inside one."""
        sizes = {file.path: file.size for file in self.files}
        if len(sizes) != len(self.files):
            raise ValueError("a file is listed twice")
        for file in self.files:
            if len(file.chunks) != -(-file.size // self.chunk_size):
                raise ValueError(f"{file.path}: {len(file.chunks)} chunks for {file.size} bytes")
        for path in self._named_files():
            if path not in sizes:
                raise ValueError(f"{path} is used but not listed")
        for name, target in self.targets.items():
            if target.weights not in self.weights:
                raise ValueError(f"target {name} uses unknown weights {target.weights}")
        for place in self._ranges():
            if place.offset + place.length > sizes.get(place.file, -1):
                raise ValueError(f"a tensor lies outside {place.file}")
        return self

    def _named_files(self) -> Iterator[str]:
        yield from (self.tokenizer, self.tokenizer_config)
        optional = (self.chat_template, self.generation_config, self.self_check)
        yield from (path for path in optional if path)
        for target in self.targets.values():
            yield from (path for path in (target.graph, target.resident_graph) if path)
        for weights in self.weights.values():
            yield from weights.shards

    def _ranges(self) -> Iterator[Range]:
        for weights in self.weights.values():
            for row in weights.tensors:
                yield from (place for _, place in row.parts())

    def sealed_bytes(self) -> bytes:
        """The file's bytes, with the seal that belongs to them."""
        blank = self.model_copy(update={"seal": _ZEROS.decode()}).to_json().encode()
        seal = hashlib.sha256(blank).hexdigest().encode()
        return _SEAL.sub(b'"seal": "' + seal + b'"', blank)


def read_manifest(bundle: Path) -> Manifest:
    """Read and check ``bundle``'s manifest (the seal too, the other files not).

    Raises:
        NotFound: there is no manifest: not a bundle, or one that was not finished.
        BadDocument: it does not fit the schema.
        SealBroken: it was changed after it was written.
    """
    path = bundle / MANIFEST_NAME
    manifest = Manifest.load(path)
    written = path.read_bytes()
    found = _SEAL.search(written)
    blank = _SEAL.sub(b'"seal": "' + _ZEROS + b'"', written)
    if found is None or hashlib.sha256(blank).hexdigest().encode() != found.group(1):
        raise SealBroken(path)
    return manifest
