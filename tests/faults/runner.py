"""Measures a bundle while one fault after the other is provoked, each on a target of its own."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Playwright

from browser_harness import launch as launching
from browser_harness import loads
from browser_harness import measure as measuring
from browser_harness import target as measuring_target
from browser_harness.flags import flags_for
from browser_harness.job import Job
from browser_harness.launch import Session
from browser_harness.measure import measure
from browser_harness.plan import PLANS, Options
from browser_harness.serve import StaticServer
from browser_harness.tab import Tab
from manifests.bundle import MANIFEST_NAME, read_manifest
from manifests.progress import Progress
from manifests.report import TargetReport
from tests.faults.catalogue import Fault
from tests.faults.leftovers import left_behind
from tests.faults.simulator import Script, Simulator
from tests.faults.strikes import Blow

#: A cold load, four tokens, a look at the memory.
BRIEF = replace(
    PLANS["full"],
    warm_loads=0,
    first_prompt=4,
    prefill_lengths=(),
    decode_tokens=4,
    sampling_seconds=0.0,
)


@dataclass(frozen=True)
class Case:
    """A fault on a target; ``name`` is what the target is called in the bundle and the report."""

    name: str
    target: str
    fault: Fault


@dataclass(frozen=True)
class Ending:
    """How a target of a run ended.

    Attributes:
        report: its part of the report.
        seconds: from the first blow to the end of the browser; from its start where nothing
            was struck; ``None`` where it did not start.
        left: what was on the machine after it and not before.
    """

    report: TargetReport
    seconds: float | None
    left: frozenset[str]


def run(bundle: Path, cases: Sequence[Case], folder: Path, temporary: Path) -> dict[str, Ending]:
    """Measure every case in turn, in one run.

    Args:
        bundle: with the targets that the cases name; left as it is.
        cases: in the order in which they are measured.
        folder: for a bundle with a target for each case.
        temporary: where this process's children have their temporary files.
    """
    copy = write_cases(bundle, cases, folder)
    stage = Stage(cases, temporary)
    with pytest.MonkeyPatch.context() as patch:
        stage.set_up(patch)
        report = measure(
            copy,
            targets=tuple(case.name for case in cases),
            options=Options(
                adapter="software", threads=2, plans={"full": BRIEF, "software": BRIEF}
            ),
        )
    return {
        name: Ending(target, stage.seconds.get(name), stage.left.get(name, frozenset()))
        for name, target in report.targets.items()
    }


def write_cases(bundle: Path, cases: Sequence[Case], folder: Path) -> Path:
    """A bundle of the same files whose targets are the cases."""
    copy = folder / "bundle"
    shutil.copytree(bundle, copy)
    manifest = read_manifest(bundle)
    targets = {
        case.name: manifest.targets[case.target].model_copy(update=dict(case.fault.asks))
        for case in cases
    }
    changed = manifest.model_copy(update={"targets": targets})
    (copy / MANIFEST_NAME).write_bytes(changed.sealed_bytes())
    return copy


class Stage:
    """Puts the faults where the harness meets the world: server, browser, page."""

    def __init__(self, cases: Sequence[Case], temporary: Path) -> None:
        self._order: Iterator[Case] = iter(cases)
        self._by_name: Mapping[str, Case] = {case.name: case for case in cases}
        self._temporary = temporary
        self._script = Script()
        self._fault = Fault(None)
        self._session: Session | None = None
        self._began: float | None = None
        self._struck: float | None = None
        self._strikes: list[asyncio.Task[None]] = []
        self.seconds: dict[str, float] = {}
        self.left: dict[str, frozenset[str]] = {}

    def set_up(self, patch: pytest.MonkeyPatch) -> None:
        call = Tab.call

        def server(folders: Mapping[str, Path]) -> Simulator:
            return Simulator(folders, self._script)

        async def struck_call(tab: Tab, name: str, method: str, *given: Any, **rest: Any) -> Any:
            await self._strike(tab, method)
            return await call(tab, name, method, *given, **rest)

        patch.setattr(loads, "StaticServer", server)
        patch.setattr(measuring, "launch", self._launch)
        patch.setattr(measuring, "measure_target", self._measure_target)
        patch.setattr(launching, "flags_for", lambda kind: (*flags_for(kind), *self._fault.flags))
        patch.setattr(Tab, "call", struck_call)

    @asynccontextmanager
    async def _launch(self, playwright: Playwright, **options: Any) -> AsyncIterator[Session]:
        case = next(self._order)
        self._fault, self._began, self._struck = case.fault, None, None
        before = left_behind(self._temporary)
        self._script.set(case.fault.wrong)
        if case.fault.started_for is not None:
            options["adapter"] = case.fault.started_for
        try:
            async with launching.launch(playwright, **options) as session:
                self._session, self._began = session, time.monotonic()
                yield session
        finally:
            since = self._script.since or self._struck or self._began
            if since is not None:
                self.seconds[case.name] = time.monotonic() - since
            self._script.set(None)
            self.left[case.name] = left_behind(self._temporary) - before
            self._fault = Fault(None)

    async def _measure_target(
        self, session: Session, site: StaticServer, job: Job, progress: Progress
    ) -> TargetReport:
        seconds = self._by_name[job.name].fault.seconds
        plan = replace(job.plan, load_seconds=seconds, call_seconds=seconds)
        return await measuring_target.measure_target(
            session, site, replace(job, plan=plan), progress
        )

    async def _strike(self, tab: Tab, method: str) -> None:
        assert self._session is not None
        blow = Blow(self._session, tab, tab._page.url)
        if method == "load" and self._fault.prepare:
            await self._fault.prepare(blow)
        if method == self._fault.amid and self._fault.strike:
            self._struck = time.monotonic()
            # Kept, or the loop would drop it before it has struck.
            self._strikes.append(asyncio.ensure_future(self._fault.strike(blow)))
