"""What ``measure --sweep`` adds to a target's report: samples along one axis at a time."""

from __future__ import annotations

from typing import Literal

from manifests.base import Schema
from manifests.page import LoadTimings

Condition = Literal["cold", "http-cache", "opfs", "offline", "throttled"]


class ContextSweep(Schema):
    """The time of every token on the way to a long context.

    ``runs[r][i]`` is how many milliseconds after its predecessor the token at position
    ``prompt_tokens + 1 + i`` came, in fresh page r; a time limit may have ended a run
    before ``length`` positions.  The first ``warmup`` tokens of a run are not judged.
    """

    prompt_tokens: int
    length: int
    warmup: int
    runs: tuple[tuple[float, ...], ...]


class PromptSample(Schema):
    """Milliseconds to the first token after ``prompt_tokens``; the first ``warmup`` not judged."""

    prompt_tokens: int
    warmup: int
    ms: tuple[float, ...]


class ConditionLoad(Schema):
    """One load in a fresh page, by what was there before it.

    ``cold``: nothing stored, the browser's HTTP cache empty.  ``http-cache``: nothing
    stored, but the HTTP cache as the load before left it.  ``opfs``: everything stored.
    ``offline``: the same with the network gone once the page is open.  ``throttled``: cold,
    over ``network``.
    """

    condition: Condition
    network: str | None = None
    timings: LoadTimings
    first_token_ms: float
    bytes_on_wire: int


class LeakCycle(Schema):
    """Bytes held in one page after a model was loaded, used and released, garbage collected."""

    js_heap: int | None = None
    wasm_heap: int | None = None
    gpu_buffers: int | None = None
    renderer_pss: int
    gpu_process_pss: int


class LeakSweep(Schema):
    """Loads and releases in one page; the first ``warmup`` fill caches and are not judged."""

    warmup: int
    cycles: tuple[LeakCycle, ...]


class Sweeps(Schema):
    """Every sweep that was asked for; of those that ``failed`` the target's notes tell why."""

    context: ContextSweep | None = None
    prompts: tuple[PromptSample, ...] = ()
    loads: tuple[ConditionLoad, ...] = ()
    leaks: LeakSweep | None = None
    failed: tuple[str, ...] = ()
