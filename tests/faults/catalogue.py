"""The faults, as data: how each is provoked, and how it must end."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from browser_harness.flags import AdapterKind
from tests.faults import simulator, strikes
from tests.faults.simulator import Wrong
from tests.faults.strikes import Strike, after, grants, kills, runs

CPU, GPU = "wasm-q4", "webgpu-q4"
BOTH = (CPU, GPU)

#: In one chunk.
SHARD = "onnx/model_q4.onnx_data"
#: In four chunks of 4 MiB, so that a download can be taken up in its middle.
LONG = "runtime/ort-wasm-simd-threaded.jspi.wasm"
MANIFEST = "bundle/manifest.json"
#: In the second chunk of :data:`LONG`: what follows is asked for as a range.
MIDDLE = 6 << 20

BROKEN_OFF = (simulator.reset_at(MIDDLE),)


@dataclass(frozen=True)
class Fault:
    """One way for a measurement to go wrong.

    Attributes:
        code: of the failure in the report; ``None`` where the target is measured all the same.
        tells: a pattern in the failure's sentence, or in the notes of what was measured.
        targets: those that it is provoked on.
        wrong: what the server does.
        prepare: what is done to the page before it is asked to load.
        strike: what is done to the browser while the page does ``amid``.
        flags: the browser's, besides its usual ones.
        started_for: the adapter, where it is not the software one.
        asks: what the target needs, besides what it does need.
        seconds: deadline of each call to the page.
    """

    code: str | None
    tells: str = ""
    targets: tuple[str, ...] = BOTH
    wrong: Wrong | None = None
    prepare: Strike | None = None
    strike: Strike | None = None
    amid: Literal["load", "generate"] = "load"
    flags: tuple[str, ...] = ()
    started_for: AdapterKind | None = None
    asks: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 60.0


def answered(code: int) -> Wrong:
    return Wrong(SHARD, then=simulator.status(code))


#: A download that takes long enough to be struck in its middle.
SLOW = Wrong(SHARD, (simulator.pauses(1.0),))

#: They strike before there is a session, so the target makes no difference: they take turns.
DOWNLOADS: Mapping[str, Fault] = {
    "404": Fault("file-missing", f"{SHARD}.*404", (CPU,), answered(404)),
    "500": Fault("http-error", f"{SHARD}.*500", (GPU,), answered(500)),
    "503": Fault("server-busy", f"{SHARD}.*503", (CPU,), answered(503)),
    "reset": Fault("network", LONG, BOTH, Wrong(LONG, then=simulator.reset_at(MIDDLE))),
    "cut": Fault("truncated", SHARD, (GPU,), Wrong(SHARD, then=simulator.ends_at(1000))),
    "stall": Fault(
        "page-timeout", "loading", (CPU,), Wrong(LONG, then=simulator.stalls), seconds=3
    ),
    "wrong-range": Fault(
        "http-error", "asked for", (CPU,), Wrong(LONG, BROKEN_OFF, simulator.wrong_range)
    ),
    "wrong-size": Fault(
        "size-mismatch", "999999999", (GPU,), Wrong(LONG, BROKEN_OFF, simulator.other_size)
    ),
    "redeployed": Fault(
        "chunk-corrupt", LONG, (CPU,), Wrong(LONG, BROKEN_OFF, simulator.other_build)
    ),
    "swapped-shard": Fault(
        "chunk-corrupt", SHARD, (GPU,), Wrong(SHARD, then=simulator.other_build)
    ),
    "page-instead": Fault("truncated", SHARD, (CPU,), Wrong(SHARD, then=simulator.a_page_instead)),
    "recompressed-range": Fault(
        "network", LONG, (CPU,), Wrong(LONG, BROKEN_OFF, simulator.recompressed)
    ),
}

RECOVERIES: Mapping[str, Fault] = {
    "503-once": Fault(None, targets=(CPU,), wrong=Wrong(SHARD, (simulator.status(503),))),
    "reset-once": Fault(None, targets=(CPU,), wrong=Wrong(LONG, BROKEN_OFF)),
    "200-for-206": Fault(None, targets=(CPU,), wrong=Wrong(LONG, BROKEN_OFF, simulator.whole)),
    "other-etag": Fault(None, targets=(CPU,), wrong=Wrong(LONG, BROKEN_OFF, simulator.other_etag)),
    "recompressed": Fault(None, targets=(CPU,), wrong=Wrong(LONG, then=simulator.recompressed)),
    "quota": Fault(None, "not everything is kept for the next visit", prepare=grants(1 << 20)),
    "not-isolated": Fault(
        None, "one thread only", (CPU,), wrong=Wrong("", then=simulator.unisolated)
    ),
    "gpu-process-dies-unused": Fault(None, targets=(CPU,), strike=kills("gpu-process")),
}

DOCUMENTS: Mapping[str, Fault] = {
    "no-manifest": Fault(
        "manifest-missing", "404", (CPU,), wrong=Wrong(MANIFEST, then=simulator.status(404))
    ),
    "old-manifest": Fault(
        "manifest-invalid",
        "of version 1",
        (CPU,),
        wrong=Wrong(MANIFEST, then=simulator.old_manifest),
    ),
    "no-runtime": Fault(
        "runtime-broken",
        "tabwright.js",
        (CPU,),
        wrong=Wrong("runtime/tabwright.js", then=simulator.status(404)),
    ),
    "no-page": Fault(
        "page-unreachable",
        "500",
        (CPU,),
        wrong=Wrong("/harness/index.html", then=simulator.status(500)),
    ),
}

BROWSERS: Mapping[str, Fault] = {
    "no-adapter": Fault("adapter-missing", targets=(GPU,), started_for="none"),
    "no-f16": Fault("feature-missing", "shader-f16", (GPU,), asks={"features": ("shader-f16",)}),
    "small-limit": Fault(
        "limit-too-small", "maxBufferSize", (GPU,), asks={"limits": {"maxBufferSize": 1 << 50}}
    ),
    # No flag of Chromium's takes it away any more.
    "no-jspi": Fault("jspi-missing", prepare=runs("() => delete WebAssembly.Suspending")),
    "renderer-crash": Fault(
        "page-crashed", "SIGKILL", wrong=SLOW, strike=after(0.5, kills("renderer"))
    ),
    "renderer-crash-late": Fault(
        "page-crashed", "SIGKILL", strike=kills("renderer"), amid="generate"
    ),
    "browser-killed": Fault("browser-died", wrong=SLOW, strike=after(0.5, kills("browser"))),
    "driver-killed": Fault("browser-died", wrong=SLOW, strike=after(0.5, strikes.kills_driver)),
    "gpu-process-crash": Fault(
        "device-lost", targets=(GPU,), wrong=SLOW, strike=after(0.5, kills("gpu-process"))
    ),
    "gpu-process-crash-late": Fault(
        "device-lost", targets=(GPU,), strike=after(0.3, kills("gpu-process")), amid="generate"
    ),
    "device-lost": Fault(
        "device-lost",
        targets=(GPU,),
        wrong=SLOW,
        prepare=runs(strikes.KEEP_DEVICES),
        strike=after(0.5, runs(strikes.LOSE_DEVICES)),
    ),
    "loop": Fault("page-timeout", wrong=SLOW, strike=after(0.5, runs(strikes.LOOP)), seconds=3),
    "heap-full": Fault(
        "page-crashed",
        "SIGTRAP",
        wrong=SLOW,
        strike=after(0.5, runs(strikes.FILL_HEAP)),
        flags=("--js-flags=--max-old-space-size=64",),
    ),
    "wasm-memory-full": Fault(
        "session-failed", targets=(CPU,), flags=("--js-flags=--wasm-max-mem-pages=200",)
    ),
    "gpu-memory-full": Fault(
        "session-failed", "buffer|memory", targets=(GPU,), prepare=runs(strikes.FULL_GPU)
    ),
}

#: Before and after all of them, nothing is wrong.
NONE = Fault(None, targets=(CPU,))

FAULTS: MappingProxyType[str, Fault] = MappingProxyType(
    {**DOWNLOADS, **RECOVERIES, **DOCUMENTS, **BROWSERS}
)
