"""Run a bundle in a real browser and write down what it does."""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from playwright.async_api import Playwright

from browser_harness.adapters import AdapterMissing, resolve_adapter
from browser_harness.answers import OpenReference, ReferenceMismatch, open_reference
from browser_harness.browsers import browser_version, find_browser
from browser_harness.flags import AdapterKind
from browser_harness.job import Job
from browser_harness.launch import driver, launch
from browser_harness.loads import serve
from browser_harness.machine import describe_machine
from browser_harness.plan import Options
from browser_harness.roofline import add_roofline
from browser_harness.summary import summarise
from browser_harness.sweeps.run import sweep_target
from browser_harness.target import measure_target, unmeasured
from manifests.bundle import Manifest, read_manifest
from manifests.errors import EXIT_USAGE, EnvironmentProblem, Interrupted, TabwrightError
from manifests.progress import Progress, silent
from manifests.questions import Questions
from manifests.report import Browser, ReferenceSummary, Report, TargetReport

_TOOLS = ("tabwright", "playwright", "psutil", "uvicorn")


class TargetAbsent(TabwrightError):
    """The bundle was not exported for a target that was asked for."""

    code = "target-not-in-bundle"
    exit_status = EXIT_USAGE

    def __init__(self, bundle: Path, name: str, there: tuple[str, ...]) -> None:
        super().__init__(
            f"{bundle}: has no target '{name}'",
            f"choose among {', '.join(there)}, or export again with --target {name}",
        )


class PageNotBuilt(EnvironmentProblem):
    """The measuring page is not where it should be."""

    code = "page-not-built"

    def __init__(self, page: Path) -> None:
        super().__init__(
            f"{page}: the measuring page is not built",
            "run 'npm ci && npm run build' in browser_harness/page",
        )


def measure(
    bundle: Path,
    reference_path: Path | None = None,
    targets: tuple[str, ...] = (),
    options: Options | None = None,
    progress: Progress = silent,
    *,
    tasks: Path | None = None,
    keep: Callable[[Report], None] = lambda _: None,
) -> Report:
    """Measure a bundle's targets, each in a browser of its own with nothing stored.

    Ctrl-C, and whatever else the caller lets end like it, closes the browser and deletes
    its profile before KeyboardInterrupt is raised.

    Args:
        bundle: folder of the bundle.
        reference_path: reference.json; without it parity is left out.
        targets: which; all of the bundle's when empty.
        options: browser, adapter, threads and how much is measured.
        progress: told of each phase.
        tasks: a file of questions with choices that is asked besides.
        keep: gets what there is when that happens after a target was measured: the others
            have failed in it, as ``interrupted``.

    Returns:
        The report, without a verdict.  A target that failed is told in it.

    Raises:
        NotFound, BadDocument, SealBroken: the bundle or the reference cannot be read.
        QuestionInvalid: ``tasks`` holds a row that is no question.
        ReferenceMismatch: the reference was made for something else, or answers other
            questions.
        TargetAbsent, PageNotBuilt, DriverFailed, BrowserMissing: it cannot be started.
        AdapterMissing: no target can do without the one that was named.
        BrowserFailed, ProfileFailed: the browser fails with the adapter that was named.
    """
    chosen = options or Options()
    return asyncio.run(_measure(bundle, reference_path, targets, chosen, tasks, keep, progress))


def check_environment(options: Options, *, on_gpu: bool) -> None:
    """Refuse early what :func:`measure` would refuse after a long export.

    Raises:
        PageNotBuilt, BrowserMissing, AdapterMissing: it cannot be started.
        BrowserFailed, ProfileFailed: as for :func:`measure`.
    """
    asyncio.run(_check_environment(options, on_gpu=on_gpu))


def require_target(bundle: Path, manifest: Manifest, name: str) -> None:
    """Refuse a target that the bundle was not exported for.

    Raises:
        TargetAbsent: says which there are.
    """
    if name not in manifest.targets:
        raise TargetAbsent(bundle, name, tuple(manifest.targets))


async def _check_environment(options: Options, *, on_gpu: bool) -> None:
    async with driver() as playwright:
        await settle(playwright, options, on_gpu=on_gpu)


async def _measure(
    bundle: Path,
    reference_path: Path | None,
    targets: tuple[str, ...],
    options: Options,
    tasks: Path | None,
    keep: Callable[[Report], None],
    progress: Progress,
) -> Report:
    manifest = read_manifest(bundle)
    questions = Questions.load(tasks) if tasks else None
    names = targets or tuple(manifest.targets)
    for name in names:
        require_target(bundle, manifest, name)
    reference = open_reference(reference_path, manifest, names) if reference_path else None
    if reference_path and reference and questions:
        answered = reference.document.questions
        if answered is not None and answered.sha256 != questions.sha256:
            raise ReferenceMismatch(reference_path, f"it answers other questions than {tasks}")
    measured: dict[str, TargetReport] = {}
    browser: Browser | None = None

    def report() -> Report:
        return Report(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            tools=_versions(),
            bundle=summarise(manifest),
            machine=describe_machine(),
            browser=browser,
            reference=_summary(reference),
            targets=measured,
        )

    async with driver() as playwright:
        missing, adapter = await _settle_some(playwright, options, manifest, names)
    jobs = {name: _job(manifest, name, reference, adapter, options, questions) for name in names}
    try:
        for name, job in jobs.items():
            if missing is not None and manifest.targets[name].execution_provider == "webgpu":
                measured[name] = unmeasured(job, missing)
                continue
            try:
                # A driver or a server that dies costs its own target only.  The browser goes
                # first: a server that it is connected to would leave its sockets open.
                with serve(bundle, options.page) as site:
                    async with (
                        driver() as playwright,
                        launch(playwright, executable=options.browser, adapter=adapter) as session,
                    ):
                        browser = session.browser
                        measured[name] = await measure_target(session, site, job, progress)
                        measured[name] = await add_roofline(session, site, job, measured[name])
                        measured[name] = await sweep_target(
                            session, site, job, options.sweeps, measured[name], progress
                        )
            except TabwrightError as error:
                measured[name] = _after(measured.get(name), job, error)
    except asyncio.CancelledError:
        if measured:
            rest = (name for name in names if name not in measured)
            measured |= {name: unmeasured(jobs[name], Interrupted()) for name in rest}
            keep(report())
        raise
    return report()


def _after(found: TargetReport | None, job: Job, error: TabwrightError) -> TargetReport:
    """What a browser that failed to start, or to end, leaves of its target's report."""
    if found is None:
        return unmeasured(job, error)
    return found.model_copy(update={"notes": (*found.notes, f"{error.code}: {error}")})


async def _settle_some(
    playwright: Playwright, options: Options, manifest: Manifest, names: Sequence[str]
) -> tuple[AdapterMissing | None, AdapterKind]:
    """As :func:`settle`; what is missing is no reason to refuse targets that need none of it."""
    on_gpu = {manifest.targets[name].execution_provider == "webgpu" for name in names}
    try:
        return None, await settle(playwright, options, on_gpu=True in on_gpu)
    except AdapterMissing as error:
        if on_gpu == {True}:
            raise
        return error, "none"


async def settle(playwright: Playwright, options: Options, *, on_gpu: bool) -> AdapterKind:
    """Make sure of page and browser, and choose the adapter that it is started for.

    One choice for all targets, so that the report's flags are everybody's.

    Raises:
        PageNotBuilt, BrowserMissing, AdapterMissing: it cannot be started.
        BrowserFailed, ProfileFailed: it fails with the adapter that was named.
    """
    if not (options.page / "index.html").is_file():
        raise PageNotBuilt(options.page)
    found = find_browser(options.browser, Path(playwright.chromium.executable_path))
    await asyncio.to_thread(browser_version, found.executable)
    if not on_gpu:
        return "none"
    return await resolve_adapter(playwright, options.adapter, executable=options.browser)


def _job(
    manifest: Manifest,
    name: str,
    reference: OpenReference | None,
    adapter: AdapterKind,
    options: Options,
    questions: Questions | None,
) -> Job:
    on_gpu = manifest.targets[name].execution_provider == "webgpu"
    return Job(
        manifest=manifest,
        name=name,
        reference=reference,
        plan=options.plan_for(adapter, on_gpu=on_gpu),
        threads=options.threads,
        questions=questions,
        adapter=adapter if on_gpu else "none",
    )


def _summary(reference: OpenReference | None) -> ReferenceSummary | None:
    if reference is None:
        return None
    found = reference.document
    return ReferenceSummary(device=found.device, speed=found.speed, native=found.native)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in _TOOLS:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue  # run from a source tree that was never installed
    return found
