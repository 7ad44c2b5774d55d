"""What bounds decoding from above: the bytes of a token, and how fast this device moves bytes."""

from __future__ import annotations

from math import prod

from browser_harness.client import OBJECT, MeasurePage
from browser_harness.job import Job
from browser_harness.launch import Session
from browser_harness.loads import OPEN_SECONDS, Bench, Loaded, leave, load
from browser_harness.serve import StaticServer
from browser_harness.tab import Tab
from browser_harness.watch import Watch
from manifests.bundle import Manifest, Range, State, Tensor
from manifests.errors import TabwrightError
from manifests.report import TargetReport
from manifests.work import Bandwidth, GpuPasses, GpuTime, Work

_WIDTH = {"float16": 2, "float32": 4}


async def add_roofline(
    session: Session, site: StaticServer, job: Job, report: TargetReport
) -> TargetReport:
    """``report`` with the work of a token, the bandwidth of a plain loop and the GPU's time.

    Each is measured in a page of its own, once memory was looked at.  What fails is told
    in the notes; a target that failed gets none of it.
    """
    if report.failure is not None:
        return report
    found: dict[str, object] = {"work": work_of(job.manifest, job.name)}
    notes = list(report.notes)
    for name, take in (("bandwidth", _bandwidth), ("gpu_time", _gpu_time)):
        try:
            found[name] = await take(session, site, job, report)
        except TabwrightError as error:
            notes.append(f"no {name.replace('_', ' ')}: {error.code}: {error}")
    return report.model_copy(update={**found, "notes": tuple(notes)})


async def _bandwidth(
    session: Session, site: StaticServer, job: Job, report: TargetReport
) -> Bandwidth:
    tab = await session.new_tab()
    await tab.open(f"{site.url}/harness/index.html", OBJECT, seconds=OPEN_SECONDS)
    page = MeasurePage(tab, call_seconds=job.plan.call_seconds)
    on_gpu = report.execution_provider == "webgpu"
    found = await page.bandwidth(
        on_gpu=on_gpu, size=job.plan.bandwidth_bytes, threads=report.threads
    )
    await page.close()
    return found


async def _gpu_time(
    session: Session, site: StaticServer, job: Job, report: TargetReport
) -> GpuTime | None:
    """``None`` on a CPU, where the plan has none, and where the adapter cannot tell its time."""
    plan, adapter = job.plan, report.adapter
    if adapter is None or not plan.gpu_time_tokens or "timestamp-query" not in adapter.features:
        return None
    bench = Bench(session, site, Watch(session.profile), job.name, job.threads, plan, console=[])

    async def start(tab: Tab) -> None:
        await MeasurePage(tab, call_seconds=plan.call_seconds).time_gpu()

    loaded = await load(bench, "GPU time", job.prompts(), 1, opened=start)
    alone, alone_ms = await _timed(loaded, 1)
    whole, whole_ms = await _timed(loaded, 1 + plan.gpu_time_tokens)
    await leave(bench, loaded)
    if whole.full or whole.passes == 0:
        return None
    return GpuTime(
        tokens=plan.gpu_time_tokens,
        wall_ms=whole_ms - alone_ms,
        gpu_ms=whole.ms - alone.ms,
        passes=whole.passes - alone.passes,
    )


async def _timed(loaded: Loaded, tokens: int) -> tuple[GpuPasses, float]:
    """Compute passes of a run, and its milliseconds until the last token."""
    await loaded.page.gpu_passes()  # those before
    result = await loaded.page.generate(loaded.prompt, tokens)
    return await loaded.page.gpu_passes(), result.at_ms[-1]


def work_of(manifest: Manifest, target: str) -> Work:
    """What one token reads at the least, from the ledger and the graph's states.

    Codes, scales and zero points are read as they are stored, but for what the target folds
    into floats when it is loaded.
    """
    entry = manifest.targets[target]
    folded = set(entry.folded)
    rows = manifest.weights[entry.weights].tensors
    positions = [state for state in entry.states if "past_sequence_length" in state.shape]
    fixed = [state for state in entry.states if "past_sequence_length" not in state.shape]
    return Work(
        weight_bytes=sum(_read_bytes(row, folded=row.name in folded) for row in rows),
        state_bytes_per_position=sum(_state_bytes(state) for state in positions),
        state_bytes=sum(_state_bytes(state) for state in fixed),
    )


def stored_ranges(row: Tensor) -> tuple[tuple[str, Range], ...]:
    """What a tensor is stored as, by the names of its parts."""
    parts = {
        "codes": row.codes,
        "scales": row.scales,
        "zero_points": row.zero_points,
        "permutation": row.permutation,
        "values": row.values,
    }
    return tuple((name, part) for name, part in parts.items() if part is not None)


def _read_bytes(row: Tensor, *, folded: bool) -> int:
    stored = sum(part.length for _, part in stored_ranges(row))
    # Of an embedding that is no head as well, one row is read.
    if row.role == "embedding":
        return stored // row.shape[0]
    return 4 * prod(row.shape) if folded else stored


def _state_bytes(state: State) -> int:
    """Of one position where the state grows, of the whole of it where not."""
    return prod(axis for axis in state.shape if isinstance(axis, int)) * _WIDTH[state.dtype]
