"""The messages between the harness (Python) and the page it drives (TypeScript).

TypeScript types are generated from these, so the two sides cannot drift apart.
"""

from __future__ import annotations

from typing import Literal

from manifests.base import Schema

LoopKind = Literal["resident", "plain"]
DeviceFeatures = Literal["needed", "all"]


class LoadRequest(Schema):
    """Load ``target`` of the bundle at ``manifest_url``.

    ``device_features``: ``needed`` asks the GPU device for the target's features
    only; ``all`` for every feature the adapter has.  ``loop``: how tokens are made on a
    GPU; ``resident`` stays on it where that is possible.  ``self_check``: whether the
    bundle's stored logits are compared, see manifests/self_check.py.
    """

    manifest_url: str
    target: str
    threads: int
    device_features: DeviceFeatures = "needed"
    loop: LoopKind = "resident"
    self_check: bool = True


class LoadTimings(Schema):
    """Where the load went, in milliseconds of wall time.

    Phases overlap (chunks are verified and stored while others download), so
    ``fetch``, ``verify`` and ``store`` are each the time in which at least one
    chunk was in that phase, and may sum to more than ``total``.
    """

    fetch_ms: float
    verify_ms: float
    store_ms: float
    session_ms: float
    total_ms: float
    bytes_fetched: int
    bytes_from_store: int
    self_check_ms: float = 0.0


class Adapter(Schema):
    """The GPU adapter as WebGPU describes it."""

    vendor: str
    architecture: str
    device: str
    description: str
    is_fallback: bool
    features: tuple[str, ...]
    device_features: tuple[str, ...]
    limits: dict[str, int]


class Way(Schema):
    """How a load goes about it: what a fallback changes.

    ``prefill_chunk``: most tokens of a prompt's step; ``None`` for what suits the adapter.
    """

    target: str
    device_features: DeviceFeatures
    loop: LoopKind
    prefill_chunk: int | None = None


class Fallback(Schema):
    """A way that failed, the one that took its place, and why.

    ``code`` is the error's code: ``self-check-failed`` where the logits were wrong.
    """

    step: Literal["needed-features", "short-prefill", "plain-loop", "other-target", "cpu"]
    failed: Way
    taken: Way
    code: str
    reason: str


class SelfCheckResult(Schema):
    """Whether the device came to the logits that the bundle stores.

    ``passed-before``: an earlier load's pass, of the same bundle on the same adapter and
    browser, is trusted.  ``error``: the largest distance of a logit, in spreads.
    """

    outcome: Literal["passed", "passed-before", "skipped", "absent"]
    error: float | None = None
    tolerance: float | None = None
    positions: int = 0


class LoadResult(Schema):
    """What was loaded, on what.

    ``software``: the page, which sees the adapter, decides whether it is a CPU in
    disguise; the harness believes it.  ``notes`` are sentences for whoever reads the
    report: what the page did differently from what it was asked.
    """

    timings: LoadTimings
    adapter: Adapter | None = None
    software: bool
    loop: LoopKind = "plain"
    notes: tuple[str, ...]
    threads: int
    cross_origin_isolated: bool
    jspi: bool
    onnxruntime_web: str
    fallbacks: tuple[Fallback, ...] = ()
    self_check: SelfCheckResult | None = None


class GpuCalls(Schema):
    """What the page has asked of the GPU since its beginning.

    ``buffer_bytes`` were allocated, whether or not they still are; ``read_bytes`` were
    mapped to be read by the page.
    """

    dispatches: int
    submits: int
    bind_groups: int
    buffers: int
    buffer_bytes: int
    read_bytes: int


class GenerateResult(Schema):
    """A greedy continuation; ``at_ms[i]`` is when token i was there, from the start.

    ``calls`` is what the page asked of the GPU until the last token; absent without a GPU.
    """

    tokens: tuple[int, ...]
    text: str
    at_ms: tuple[float, ...]
    calls: GpuCalls | None = None


class LogitsBlock(Schema):
    """Logits of consecutive positions: little-endian float32 [rows, vocabulary], base64."""

    start: int
    rows: int
    vocabulary: int
    data: str


class TokenChance(Schema):
    """How likely a token was where it was asked for (nats), and which was the likeliest there."""

    logprob: float
    likeliest: int


class PageMemory(Schema):
    """What the page itself can see, in bytes; ``None`` where the browser hides it.

    ``gpu_bytes`` is the sum of live GPUBuffer sizes (createBuffer less destroy),
    ``gpu_peak_bytes`` its highest value so far; the WASM heap never shrinks, so
    its size is its peak.
    """

    js_heap_bytes: int | None = None
    wasm_heap_bytes: int
    gpu_bytes: int
    gpu_peak_bytes: int
