"""``report.json``: what was measured, with every sample, and the verdict.

A number never travels without its samples, its warm-up, the adapter, the
browser, the versions and the thread count; all of them are in here.
"""

from __future__ import annotations

from typing import Literal, Self

from manifests.agreement import Agreement
from manifests.base import Real, Schema
from manifests.budget import Statistic
from manifests.bundle import Sha256
from manifests.errors import TabwrightError
from manifests.page import Adapter, Fallback, GpuCalls, LoadTimings, SelfCheckResult
from manifests.questions import Answers
from manifests.reference import Device, NativeSpeed, Speed
from manifests.sweeps import Sweeps
from manifests.work import Bandwidth, GpuTime, MemoryLedger, TextYield, Work


class Failure(Schema):
    """Why a target, or a step of it, could not be measured."""

    code: str
    sentence: str
    next_step: str = ""

    @classmethod
    def of(cls, error: TabwrightError) -> Self:
        """What an error says."""
        return cls(code=error.code, sentence=str(error), next_step=error.next_step)


class BundleSummary(Schema):
    """The bundle that was measured."""

    name: str
    architecture: str
    parameters: int
    seal: Sha256
    source_digest: Sha256
    bytes: int
    bytes_by_kind: dict[str, int]


class Machine(Schema):
    """Where the browser ran."""

    system: str
    cpu: str
    cores: int
    memory_bytes: int


class Browser(Schema):
    """The browser, as it was started."""

    name: str
    version: str
    executable: str
    flags: tuple[str, ...]
    headless: bool


class LoadSample(Schema):
    """One load in a fresh page: cold (nothing stored) or warm (from OPFS)."""

    timings: LoadTimings
    first_token_ms: float
    bytes_on_wire: int


class PrefillSample(Schema):
    """Milliseconds to the first token for one prompt length, one per repetition.

    The first ``warmup`` are not judged.  ``visit`` counts the fresh pages of a target, in
    the order in which they were opened; ``prompt`` is the digest of the prompt's ids.
    """

    prompt_tokens: int
    prompt: Sha256 | None = None
    visit: int = 0
    warmup: int
    ms: tuple[float, ...]


class DecodeRun(Schema):
    """Milliseconds of each token after the first; fields as in :class:`PrefillSample`.

    ``calls`` is what all of them asked of the GPU together: the run's calls less those of the
    prompt and one token.
    """

    prompt_tokens: int
    prompt: Sha256 | None = None
    visit: int = 0
    warmup: int
    ms: tuple[float, ...]
    calls: GpuCalls | None = None


class MemoryPoint(Schema):
    """One look at memory, in bytes; ``pss`` is proportional set size.

    The page's own figures are absent while the page is busy or gone.
    """

    at_ms: float
    phase: str
    renderer_pss: int
    gpu_process_pss: int
    js_heap: int | None = None
    wasm_heap: int | None = None
    gpu_buffers: int | None = None


class Memory(Schema):
    """Peaks over the run, the state at rest after it, and every look in between.

    A run that failed did not come to ``rest``.
    """

    peak: MemoryPoint
    rest: MemoryPoint | None = None
    timeline: tuple[MemoryPoint, ...]


class TokenCheck(Schema):
    """Token ids in the page against transformers'; ``first_difference`` is an index.

    ``round_trip`` tells what the page's tokenizer makes of transformers' ids: the text again
    (``whole``), what transformers makes of them, though that is another (``same``), or
    something else (``differs``).  Conversations have none.
    """

    name: str
    language: str
    equal: bool
    first_difference: int | None = None
    round_trip: Literal["whole", "same", "differs"] | None = None


class GreedyCheck(Schema):
    """A greedy continuation against PyTorch's.

    ``equal_tokens`` of ``tokens`` agree before the first divergence; ``margin`` is
    the reference's margin over its runner-up there.  It is a near-tie when the margin
    is small and the runner-up is what the browser chose.
    """

    name: str
    language: str
    tokens: int
    equal_tokens: int
    outcome: Literal["exact", "near-tie", "diverged"]
    margin: float | None = None
    text: str


class Parity(Schema):
    """The losses, kept apart.

    compression: the original weights against the checkpoint, both in PyTorch fp32; absent
    where the reference was made without the original.
    export: the checkpoint against the bundle's weights, both in PyTorch fp32.
    runtime: the bundle's weights in PyTorch fp32 against this browser.
    """

    tokens: tuple[TokenCheck, ...]
    chats: tuple[TokenCheck, ...]
    export: Agreement
    runtime: Agreement
    runtime_by_language: dict[str, Agreement]
    greedy: tuple[GreedyCheck, ...]
    compression: Agreement | None = None


class PagePair(Schema):
    """Two fresh pages that were there at the same time, each in a browser of its own.

    Their runs took turns, ``first`` beginning: A B B A.
    """

    first: Literal["old", "new"]
    old: tuple[DecodeRun, ...]
    new: tuple[DecodeRun, ...]


class Beside(Schema):
    """A target measured in turns with another one.

    ``noise`` came first: the old one in turns with itself.  ``pairs`` hold what is compared.
    """

    bundle: str
    seal: Sha256
    target: str
    noise: tuple[PagePair, ...]
    pairs: tuple[PagePair, ...]


class TargetReport(Schema):
    """One target in one browser.  What was measured before a failure is kept.

    ``software_adapter`` is what the page says of its adapter; ``target_bytes`` are the
    files that a load verifies; ``notes`` are the page's and the harness's.
    ``reference_questions`` are PyTorch's answers to the same questions, with the checkpoint,
    and ``original_questions`` with the uncompressed model.  ``fp16_bytes`` is what the
    model's parameters take at two bytes each.  ``beside`` is there where another bundle or
    target was measured in turns with this one, ``beside_failure`` where that came to no end.
    """

    execution_provider: Literal["webgpu", "wasm"]
    failure: Failure | None = None
    adapter: Adapter | None = None
    software_adapter: bool = False
    threads: int
    onnxruntime_web: str | None = None
    cross_origin_isolated: bool | None = None
    jspi: bool | None = None
    target_bytes: int
    cold: tuple[LoadSample, ...] = ()
    warm: tuple[LoadSample, ...] = ()
    prefill: tuple[PrefillSample, ...] = ()
    decode: tuple[DecodeRun, ...] = ()
    memory: Memory | None = None
    parity: Parity | None = None
    questions: Answers | None = None
    reference_questions: Answers | None = None
    console: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fallbacks: tuple[Fallback, ...] = ()
    self_check: SelfCheckResult | None = None
    original_questions: Answers | None = None
    fp16_bytes: int | None = None
    beside: Beside | None = None
    beside_failure: Failure | None = None
    sweeps: Sweeps | None = None
    work: Work | None = None
    bandwidth: Bandwidth | None = None
    texts: tuple[TextYield, ...] = ()
    ledger: MemoryLedger | None = None
    gpu_time: GpuTime | None = None


class ReferenceSummary(Schema):
    """The other side of the comparison: PyTorch, and the bundle outside a browser."""

    device: Device
    speed: Speed
    native: tuple[NativeSpeed, ...] = ()


class Interval(Schema):
    """Both ends of a confidence interval, in the unit of what it is about."""

    low: Real
    high: Real


class Comparison(Schema):
    """A figure against the baseline's.

    ``baseline`` is in the metric's unit; ``ratio`` is this report's figure over it.  Both
    ends of its ``interval`` are the ratio itself where the figure is exact; it is absent
    where either report sampled fewer than two fresh pages.
    """

    baseline: Real
    ratio: Real
    interval: Interval | None = None
    change: Literal["regressed", "improved", "same", "inconclusive"]


class Check(Schema):
    """One bound judged.

    ``value`` is absent when the figure is missing; ``interval`` is the statistic's, absent
    where the figure is exact or its samples are too few.  ``limit`` is in the metric's
    unit, a multiple of PyTorch's or the uncompressed model's figure, or the share by which
    the figure may be worse than the baseline's: ``of`` tells.
    """

    target: str
    metric: str
    unit: str
    statistic: Statistic = "median"
    bound: Literal["min", "max", "regression"]
    of: Literal["value", "reference", "baseline", "original"] = "value"
    limit: float
    value: Real | None = None
    interval: Interval | None = None
    comparison: Comparison | None = None
    outcome: Literal["pass", "warn", "fail", "inconclusive"]
    reason: str = ""


class Baseline(Schema):
    """The report that was compared with."""

    created: str
    bundle: str
    seal: Sha256


class Verdict(Schema):
    """Every limit of the budget, judged.

    ``failed_targets`` were measured and failed; one is enough to fail the verdict,
    whether the budget limits it or not.  ``confidence`` is that of the checks' intervals,
    absent where there is none.
    """

    outcome: Literal["pass", "fail", "inconclusive"]
    confidence: float | None = None
    baseline: Baseline | None = None
    failed_targets: tuple[str, ...] = ()
    checks: tuple[Check, ...]


class Report(Schema):
    """The whole file."""

    format: Literal["tabwright-report"] = "tabwright-report"
    version: Literal[1] = 1
    created: str
    tools: dict[str, str]
    bundle: BundleSummary
    machine: Machine
    browser: Browser | None = None
    reference: ReferenceSummary | None = None
    targets: dict[str, TargetReport]
    verdict: Verdict | None = None
