"""The harness's commands: measure, serve, doctor; those that judge are in ``judging``."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from browser_harness.sweeps.asked import Asked, SweepParameter
from manifests import options
from manifests.console import Console
from manifests.errors import EXIT_ENVIRONMENT
from manifests.options import PATH

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from browser_harness.flags import AdapterChoice
    from manifests.progress import Progress
    from manifests.report import Report


def measure_bundle(
    bundle: Path,
    reference: Path | None,
    targets: tuple[str, ...],
    out: Path,
    *,
    adapter: AdapterChoice,
    threads: int | None,
    browser: Path | None,
    precision: float | None = None,
    sampling_seconds: float | None = None,
    tasks: Path | None = None,
    beside: Path | None = None,
    beside_target: str | None = None,
    sweeps: tuple[Asked, ...] = (),
    progress: Progress,
) -> Report:
    """Measure ``targets`` of a bundle, every one where none is named, and write the report.

    Without a reference, parity is left out.  ``precision`` and ``sampling_seconds`` go
    before the full plan's own.  Each target is measured in turns with one of ``beside``, too,
    where that bundle is given.

    Raises:
        TabwrightError: whatever :func:`browser_harness.measure.measure` refuses.
    """
    from browser_harness.measure import measure
    from browser_harness.plan import PLANS, Options, default_threads

    full = PLANS["full"]
    if precision is not None:
        full = replace(full, precision=precision)
    if sampling_seconds is not None:
        full = replace(full, sampling_seconds=sampling_seconds)
    options = Options(
        browser=browser,
        adapter=adapter,
        threads=threads or default_threads(),
        plans={**PLANS, "full": full},
        sweeps=sweeps,
    )
    if beside is not None:
        from browser_harness.beside import add_beside, require_beside

        require_beside(bundle, beside, targets, beside_target)

    def keep(found: Report) -> None:
        found.save(out)

    report = measure(bundle, reference, targets, options, progress, tasks=tasks, keep=keep)
    report.save(out)
    if beside is not None:
        report = add_beside(report, bundle, beside, beside_target, options, progress, keep=keep)
    return report


def check_environment(*, adapter: AdapterChoice, browser: Path | None, on_gpu: bool) -> None:
    """Refuse what measuring would refuse: no browser, not the adapter that was named.

    Raises:
        TabwrightError: whatever :func:`browser_harness.measure.check_environment` refuses.
    """
    from browser_harness import measure
    from browser_harness.plan import Options

    measure.check_environment(Options(browser=browser, adapter=adapter), on_gpu=on_gpu)


def inside(
    bundle: Path, target: str | None, *, adapter: AdapterChoice, browser: Path | None
) -> Callable[[Path, str, Sequence[int]], NDArray[np.float32]]:
    """What reads a copy of ``bundle`` whose graph shows what is inside it.

    Raises:
        TargetAbsent, PageNotBuilt, BrowserMissing, AdapterMissing: it could not be started.
    """
    from browser_harness.inside import read_rows
    from browser_harness.measure import require_target
    from browser_harness.plan import Options
    from manifests.bundle import read_manifest

    manifest = read_manifest(bundle)
    if target is not None:
        require_target(bundle, manifest, target)
    entries = [manifest.targets[target]] if target else list(manifest.targets.values())[:1]
    on_gpu = any(entry.execution_provider == "webgpu" for entry in entries)
    check_environment(adapter=adapter, browser=browser, on_gpu=on_gpu)
    return partial(read_rows, options=Options(browser=browser, adapter=adapter))


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--reference", type=PATH, help="What 'reference' wrote; parity needs it.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    metavar="NAME",
    help="A target of the bundle; repeat for several.  [default: all]",
)
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="The file, e.g. report.json; replaced if it is there.",
)
@options.adapter
@options.wasm_threads
@options.browser
@click.option(
    "--precision",
    type=click.FloatRange(min=0, min_open=True),
    metavar="PERCENT",
    help="How well the median decode time must be known.  [default: 2.5]",
)
@click.option(
    "--sampling-seconds",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="When no further page is opened for it, per target.  [default: 60]",
)
@options.tasks
@click.option(
    "--beside",
    type=PATH,
    metavar="BUNDLE",
    help="Measure decode speed in turns with this one (A B B A), after an A/A run.",
)
@click.option(
    "--beside-target", metavar="NAME", help="Its target.  [default: that of the same name]"
)
@click.option(
    "--sweep",
    "sweeps",
    type=SweepParameter(),
    multiple=True,
    metavar="NAME[=VALUE]",
    help="Measure along an axis besides; repeat for several.  context[=TOKENS], "
    "prompts[=TOKENS], loads[=NETWORK], leaks[=CYCLES].",
)
@click.pass_context
def measure(
    context: click.Context,
    *,
    bundle: Path,
    reference: Path | None,
    targets: tuple[str, ...],
    output: Path,
    adapter: AdapterChoice,
    threads: int | None,
    browser: Path | None,
    precision: float | None,
    sampling_seconds: float | None,
    tasks: Path | None,
    beside: Path | None,
    beside_target: str | None,
    sweeps: tuple[Asked, ...],
) -> None:
    """Run a bundle in a browser.

    Starts a headless Chromium on a profile of its own, compares its answers with
    the reference and keeps every sample.  A target that fails is in the report.
    Exit status: 0 when at least one target was measured, 4 when every one failed.
    """
    from browser_harness.report import render

    if beside_target is not None and beside is None:
        raise click.UsageError("--beside-target goes with --beside")
    console: Console = context.obj
    report = measure_bundle(
        bundle,
        reference,
        targets,
        output,
        adapter=adapter,
        threads=threads,
        browser=browser,
        precision=None if precision is None else precision / 100,
        sampling_seconds=sampling_seconds,
        tasks=tasks,
        beside=beside,
        beside_target=beside_target,
        sweeps=sweeps,
        progress=console.progress,
    )
    console.show(report, render(report))
    if all(target.failure is not None for target in report.targets.values()):
        context.exit(EXIT_ENVIRONMENT)


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--target", "targets", multiple=True, metavar="NAME", help="[default: all]")
@click.option(
    "--context",
    "contexts",
    type=click.IntRange(min=1),
    multiple=True,
    metavar="TOKENS",
    help="Positions of the text; repeat for several.  [default: 1024 and the model's context]",
)
@click.pass_obj
def fit(
    console: Console, *, bundle: Path, targets: tuple[str, ...], contexts: tuple[int, ...]
) -> None:
    """Tell how much memory a bundle needs.

    Works it out from the manifest, for GPU buffers or the WASM heap, and names the smallest
    device that it fits.  No browser is started; 'measure' tells how right it was.
    """
    from browser_harness.fit import fit as predict_all
    from browser_harness.fit import render
    from browser_harness.measure import require_target
    from manifests.bundle import read_manifest

    manifest = read_manifest(bundle)
    names = targets or tuple(manifest.targets)
    for name in names:
        require_target(bundle, manifest, name)
    most = manifest.model.context_length
    asked = [min(context, most) for context in contexts or (1024, most)]
    found = predict_all(manifest, names, sorted(set(asked)))
    console.show(found, render(found))


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True)
@click.option("--open/--no-open", "opens", default=True, help="Open it in your browser.")
@click.pass_obj
def serve(console: Console, *, bundle: Path, port: int, opens: bool) -> None:
    """Open a bundle in your own browser.

    Serves it on this machine only, until Ctrl-C.
    """
    from browser_harness.serve import StaticServer
    from manifests.bundle import read_manifest

    manifest = read_manifest(bundle)
    # Ctrl-C is how this is meant to end.
    with suppress(KeyboardInterrupt), StaticServer({"/": bundle}, port) as server:
        console.show(
            {"url": server.url, "seal": manifest.seal},
            f"{manifest.model.name}: {server.url} (Ctrl-C ends it)",
        )
        if opens:
            click.launch(server.url)
        threading.Event().wait()


@click.command()
@click.pass_obj
def doctor(console: Console) -> None:
    """Tell what this machine can do.

    Browser, WebGPU adapters with their features and limits, CUDA and Node; and what
    to install where something is missing.
    """
    from browser_harness.doctor import examine, render

    findings = examine(console.progress)
    console.show(findings, render(findings))
