"""What bounds decoding from above: the bytes of a token, and how fast this device moves bytes."""

from __future__ import annotations

from math import prod

from browser_harness.client import MeasurePage
from browser_harness.job import Job
from browser_harness.launch import Session
from browser_harness.loads import Bench, Loaded, leave, load
from browser_harness.serve import StaticServer
from browser_harness.tab import Tab
from browser_harness.watch import Watch
from manifests.bundle import Manifest, State, Tensor
from manifests.errors import TabwrightError
from manifests.report import TargetReport
from manifests.work import Bandwidth, GpuPasses, GpuTime, Work

_WIDTH = {"float16": 2, "float32": 4}


async def add_roofline(
    session: Session, site: StaticServer, job: Job, report: TargetReport
) -> TargetReport:
    """``report`` with the work of a token, the bandwidth of a plain loop and the GPU's time.

    Each is measured in a page of its own, once memory was looked at.  What cannot be had is
    told in the notes; a target that failed gets none of it.
    """
    if report.failure is not None:
        return report
    found: dict[str, object] = {"work": work_of(job.manifest, job.name)}
    notes = list(report.notes)
    bench = job.bench(session, site, Watch(session.profile), console=[])
    for name, take in (("bandwidth", _bandwidth), ("gpu_time", _gpu_time)):
        try:
            taken = await take(bench, job, report)
        except TabwrightError as error:
            taken = f"{error.code}: {error}"
            await session.close_tabs()
        if isinstance(taken, str):
            notes.append(f"no {name.replace('_', ' ')}: {taken}")
        else:
            found[name] = taken
    return report.model_copy(update={**found, "notes": tuple(notes)})


async def _bandwidth(bench: Bench, job: Job, report: TargetReport) -> Bandwidth:
    page = await bench.open(bench.session)
    on_gpu = report.execution_provider == "webgpu"
    found = await page.bandwidth(
        on_gpu=on_gpu, size=job.plan.bandwidth_bytes, threads=report.threads
    )
    await page.close()
    return found


async def _gpu_time(bench: Bench, job: Job, report: TargetReport) -> GpuTime | str | None:
    """Why there is none, or ``None`` on a CPU and where the plan has none."""
    plan, adapter = job.plan, report.adapter
    if adapter is None or not plan.gpu_time_tokens:
        return None
    if "timestamp-query" not in adapter.features:
        return "the adapter has no timestamp-query"

    async def start(tab: Tab) -> None:
        await MeasurePage(tab, call_seconds=plan.call_seconds).time_gpu()

    loaded = await load(bench, "GPU time", job.prompts(), 1, opened=start)
    alone, alone_ms = await _timed(loaded, 1)
    whole, whole_ms = await _timed(loaded, 1 + plan.gpu_time_tokens)
    await leave(bench, loaded)
    return gpu_time(plan.gpu_time_tokens, (alone, alone_ms), (whole, whole_ms))


def gpu_time(
    tokens: int, alone: tuple[GpuPasses, float], whole: tuple[GpuPasses, float]
) -> GpuTime | str:
    """A run of ``tokens`` after the first less one of the first, or why there is none.

    Both are a run's passes and its milliseconds until the last token.
    """
    (first, first_ms), (all_of_it, all_ms) = alone, whole
    if all_of_it.full:
        return f"{tokens} tokens have more compute passes than the {all_of_it.passes} timed"
    if all_of_it.passes == 0:
        return "no compute pass was timed"
    return GpuTime(
        tokens=tokens,
        wall_ms=all_ms - first_ms,
        gpu_ms=all_of_it.ms - first.ms,
        passes=all_of_it.passes - first.passes,
    )


async def _timed(loaded: Loaded, tokens: int) -> tuple[GpuPasses, float]:
    """Compute passes of a run, and its milliseconds until the last token."""
    await loaded.page.gpu_passes()  # those before
    result = await loaded.page.generate(loaded.prompt, tokens)
    return await loaded.page.gpu_passes(), result.at_ms[-1]


def work_of(manifest: Manifest, target: str) -> Work:
    """What one token reads at the least, from the ledger and the graph's states.

    Codes, scales and zero points are read as the device holds them: on a GPU as they are stored.
    """
    entry = manifest.targets[target]
    packed = entry.execution_provider == "wasm"
    rows = manifest.weights[entry.weights].tensors
    positions = [state for state in entry.states if "past_sequence_length" in state.shape]
    fixed = [state for state in entry.states if "past_sequence_length" not in state.shape]
    return Work(
        weight_bytes=sum(_read_bytes(row, packed=packed) for row in rows),
        state_bytes_per_position=sum(_state_bytes(state) for state in positions),
        state_bytes=sum(_state_bytes(state) for state in fixed),
    )


def _read_bytes(row: Tensor, *, packed: bool) -> int:
    # Of an embedding that is no head as well, one row is read.
    if row.role == "embedding":
        return row.stored_bytes // row.shape[0]
    return row.packed_bytes if packed and row.role != "float" else row.stored_bytes


def _state_bytes(state: State) -> int:
    """Of one position where the state grows, of the whole of it where not."""
    return prod(axis for axis in state.shape if isinstance(axis, int)) * _WIDTH[state.dtype]
