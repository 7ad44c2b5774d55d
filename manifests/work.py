"""What a decoded token costs whatever the device: bytes read, calls made, and how much it says."""

from __future__ import annotations

from typing import Literal

from manifests.base import Schema


class Work(Schema):
    """Bytes that decoding one token has to read, from the manifest.

    ``weight_bytes``: every weight but the embedding's unused rows, as the execution provider
    holds them.  ``state_bytes_per_position`` of the KV cache are read for each position
    before the token; ``state_bytes`` are read whatever the position.
    """

    weight_bytes: int
    state_bytes_per_position: int
    state_bytes: int


class Bandwidth(Schema):
    """How fast memory is moved by nothing but a loop, on the same device and threads.

    ``webgpu-copy``: a compute shader copies a buffer; ``bytes`` are read and written.
    ``wasm-read``: 16 bytes at a time are read, on ``threads`` threads.  Each of ``ms`` is the
    time of moving ``bytes``, taken by ``clock``; the first ``warmup`` are not judged.
    """

    kind: Literal["webgpu-copy", "wasm-read"]
    threads: int
    bytes: int
    clock: Literal["gpu", "wall"]
    warmup: int
    ms: tuple[float, ...]


class TextYield(Schema):
    """How many tokens a text takes: the page's own tokenizer, on the same text in each language.

    ``characters`` are Unicode code points, ``words`` what white space separates.
    """

    language: str
    tokens: int
    characters: int
    words: int


class GpuBuffers(Schema):
    """``count`` live GPU buffers of ``size`` bytes, one label and one ``usage``.

    Whoever made them chose the label; ``usage`` is WebGPU's ``GPUBufferUsage`` flags.
    """

    label: str
    usage: int
    size: int
    count: int


class Prediction(Schema):
    """Bytes that a target holds with a text of ``context`` positions, from the manifest alone.

    ``place`` is where: GPU buffers, or the WASM heap, of which ``runtime`` bytes are there
    without any model.
    """

    place: Literal["gpu", "wasm"]
    context: int
    weights: int
    states: int
    activations: int
    runtime: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.states + self.activations + self.runtime


class MemoryLedger(Schema):
    """What was held at rest, by purpose, against what was predicted.

    ``held`` is what lies in the prediction's place.  GPU buffers are ``states`` by the label
    that the runtime gives them, ``weights`` where their size is that of a stored tensor,
    ``activations`` where a shader can use them besides (onnxruntime-web keeps them for the next
    run), and ``other`` beyond that: the sampler, what the loop feeds and fetches, parameters of
    shaders.  All are absent on a CPU, and the conventional graph's cache, whose buffers have no
    label, is among the activations.
    """

    predicted: Prediction
    held: int
    gpu_weights: int | None = None
    gpu_states: int | None = None
    gpu_activations: int | None = None
    gpu_other: int | None = None


class TargetFit(Schema):
    """A prediction; ``limits`` are what it asks of a GPU adapter.

    ``objections`` are sentences by the profile of a device that it does not fit.
    """

    need: Prediction
    limits: dict[str, int]
    objections: dict[str, tuple[str, ...]]


class Fit(Schema):
    """What each target of a bundle needs, by the contexts that were asked about."""

    bundle: str
    targets: dict[str, tuple[TargetFit, ...]]


class GpuPasses(Schema):
    """Compute passes by timestamps of the GPU: how many, and the milliseconds of all together.

    ``full``: there were more than could be timed.
    """

    passes: int
    ms: float
    full: bool


class GpuTime(Schema):
    """GPU time against wall time, in a page that asks its device for ``timestamp-query``.

    All figures are those of ``tokens`` tokens after the first: a run of them less one of a
    single token, so that what the loop does ahead of time is in both times or in neither.
    ``gpu_ms`` is what ``passes`` compute passes kept the GPU busy for.
    """

    tokens: int
    wall_ms: float
    gpu_ms: float
    passes: int
