"""The sweeps that were asked for, one after the other, in a target's own browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from types import MappingProxyType
from typing import Any

from browser_harness.job import Job
from browser_harness.launch import Session
from browser_harness.loads import Bench
from browser_harness.serve import StaticServer
from browser_harness.summary import target_bytes
from browser_harness.sweeps.asked import DEFAULT_NETWORK, Asked, SweepName
from browser_harness.sweeps.conditions import sweep_loads
from browser_harness.sweeps.leaks import sweep_leaks
from browser_harness.sweeps.lengths import sweep_context, sweep_prompts
from browser_harness.watch import Watch
from manifests.errors import TabwrightError
from manifests.progress import Progress
from manifests.report import TargetReport
from manifests.sweeps import Sweeps

Sweep = Callable[[Bench, Job, Asked, Progress], Awaitable[Any]]


async def _context(bench: Bench, job: Job, asked: Asked, progress: Progress) -> Any:
    return await sweep_context(bench, job.prompts(), _length(bench, job, asked, 0), progress)


async def _prompts(bench: Bench, job: Job, asked: Asked, progress: Progress) -> Any:
    return await sweep_prompts(bench, job.prompts(), _length(bench, job, asked, 1), progress)


def _length(bench: Bench, job: Job, asked: Asked, room: int) -> int:
    """What was asked for, the plan's own else, within the context less ``room``."""
    context = job.manifest.model.context_length
    return max(1, min(asked.number or bench.plan.sweep_length or context, context - room))


async def _loads(bench: Bench, job: Job, asked: Asked, progress: Progress) -> Any:
    size = target_bytes(job.manifest, job.name)
    network = asked.value or DEFAULT_NETWORK
    return await sweep_loads(bench, job.prompts(), network, size, progress)


async def _leaks(bench: Bench, job: Job, asked: Asked, progress: Progress) -> Any:
    cycles = asked.number or bench.plan.sweep_cycles
    return await sweep_leaks(bench, job.prompts(), cycles, progress)


SWEEPS: MappingProxyType[SweepName, Sweep] = MappingProxyType(
    {"context": _context, "prompts": _prompts, "loads": _loads, "leaks": _leaks}
)


async def sweep_target(
    session: Session,
    site: StaticServer,
    job: Job,
    asked: tuple[Asked, ...],
    report: TargetReport,
    progress: Progress,
) -> TargetReport:
    """``report`` with the sweeps in it.

    A sweep that fails is named, told in the notes, and leaves the others as they are; a target that
    failed before is not swept.
    """
    if not asked or report.failure is not None:
        return report
    console: list[str] = []
    bench = job.bench(session, site, Watch(session.profile), console)
    found: dict[str, Any] = {}
    failed: list[str] = []
    notes: list[str] = []
    for each in asked:
        try:
            found[each.name] = await SWEEPS[each.name](bench, job, each, progress)
        except TabwrightError as error:
            failed.append(each.name)
            notes.append(f"sweep '{each.name}' failed: {error.code}: {error}")
            # What still computes or downloads there would be measured with the next one.
            bench.watch.ask_page = None
            await session.close_tabs()
    return report.model_copy(
        update={
            "sweeps": Sweeps(**found, failed=tuple(failed)),
            "notes": (*report.notes, *notes),
            "console": (*report.console, *console),
        }
    )
