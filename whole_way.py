"""The commands that lead through both rooms: what each room does for them is one call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manifests import options
from manifests.errors import EXIT_GATE_FAILED, EXIT_OK
from manifests.options import PATH

if TYPE_CHECKING:
    from browser_harness.flags import AdapterChoice
    from exporter.reference.model import DeviceChoice
    from manifests.console import Console
    from targets.catalog import RoundingMethod

#: What ``run`` leaves in its output folder.
OUTPUTS = ("bundle", "reference.json", "report.json", "report.html", "junit.xml")


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("--target", "targets", multiple=True, required=True, help="Repeat for several.")
@click.option("--budget", type=PATH, help="The limits; by default docs/budget.md's.")
@click.option("-o", "--output", type=PATH, required=True, help="A folder.")
@click.option("--force", is_flag=True, help="Replace what an earlier run left there.")
@options.context_length
@options.lora
@options.head_bits
@options.rounding
@options.tasks
@options.original
@options.adapter
@options.device
@options.wasm_threads
@options.browser
@click.pass_context
def run(
    context: click.Context,
    *,
    checkpoint: Path,
    targets: tuple[str, ...],
    budget: Path | None,
    output: Path,
    force: bool,
    context_length: int | None,
    lora: Path | None,
    head_bits: int | None,
    rounding: RoundingMethod,
    tasks: Path | None,
    original: Path | None,
    adapter: AdapterChoice,
    device: DeviceChoice,
    threads: int | None,
    browser: Path | None,
) -> None:
    """Export a checkpoint, measure it in a browser, and judge it.

    Leaves bundle/, reference.json, report.json, report.html and junit.xml in the
    output folder.  Browser, adapter and CUDA are looked for before anything is
    written.  Exit status: 0 passed, 1 failed, 5 inconclusive.
    """
    from browser_harness import commands as harness
    from browser_harness.judge import check_budget, exit_status
    from browser_harness.judging import commands as judging
    from browser_harness.report import render
    from exporter import commands as exporter
    from manifests.budget import Budget
    from manifests.questions import Questions
    from targets import find_targets

    console: Console = context.obj
    progress = console.progress
    # What would fail at the end is told before minutes are spent.
    if budget is not None:
        check_budget(Budget.load(budget), console.targets)
    if tasks is not None:
        Questions.load(tasks)
    on_gpu = any(each.execution_provider == "webgpu" for each in find_targets(targets))
    harness.check_environment(adapter=adapter, browser=browser, on_gpu=on_gpu)
    if device == "cuda":
        from exporter.reference.model import choose_device

        choose_device(device)
    bundle, reference, report, html, junit = (output / name for name in OUTPUTS)
    earlier = (reference, reference.with_suffix(".safetensors"), report, html, junit)
    _check_free(earlier, force=force)
    exporter.export_bundle(
        checkpoint,
        targets,
        bundle,
        force=force,
        context_length=context_length,
        adapter=lora,
        head_bits=head_bits,
        rounding=rounding,
        progress=progress,
    )
    # None of an earlier run's files may be taken for this bundle's.
    for file in earlier:
        file.unlink(missing_ok=True)
    from exporter.reference.make import make_reference

    make_reference(
        checkpoint,
        bundle,
        reference,
        device=device,
        adapter=lora,
        tasks=tasks,
        original=original,
        progress=progress,
    )
    harness.measure_bundle(
        bundle,
        reference,
        targets,
        report,
        adapter=adapter,
        threads=threads,
        browser=browser,
        tasks=tasks,
        progress=progress,
    )
    judged, verdict = judging.judge_report(report, budget, console.targets)
    judging.write_views(judged, html=html, junit=junit)
    console.show(judged, render(judged))
    context.exit(exit_status(verdict))


@click.command()
@click.argument("bundle", type=PATH)
@click.option("--checkpoint", type=PATH, required=True, help="What it was made from.")
@click.option("--target", help="A target of the bundle.  [default: the first]")
@options.lora
@click.option("--tolerance", type=click.FloatRange(min=0), help="Relative deviation allowed.")
@options.adapter
@options.device
@options.browser
@click.pass_context
def diagnose(
    context: click.Context,
    *,
    bundle: Path,
    checkpoint: Path,
    target: str | None,
    lora: Path | None,
    tolerance: float | None,
    adapter: AdapterChoice,
    device: DeviceChoice,
    browser: Path | None,
) -> None:
    """Name the first tensor that a browser gets wrong.

    Compares hidden states between PyTorch and the browser, layer by layer, then tensor by
    tensor in the first layer that leaves the tolerance.  Exit status: 0 when none does,
    1 when one is named.
    """
    from browser_harness import commands as harness
    from exporter.diagnose.bisect import diagnose as bisect
    from exporter.diagnose.view import diagnosis_view
    from manifests.bundle import read_manifest

    console: Console = context.obj
    found = bisect(
        bundle,
        checkpoint,
        target or next(iter(read_manifest(bundle).targets)),
        harness.inside(bundle, target, adapter=adapter, browser=browser),
        adapter=lora,
        device=device,
        tolerance=tolerance,
        progress=console.progress,
    )
    console.show(found, diagnosis_view(found))
    context.exit(EXIT_OK if found.first is None else EXIT_GATE_FAILED)


def _check_free(files: Iterable[Path], *, force: bool) -> None:
    """Refuse an output folder with an earlier run's files in it.

    Raises:
        OutputExists: there is one, and it may not be replaced.
    """
    from exporter.write.errors import OutputExists

    for file in files:
        if file.exists() and not force:
            raise OutputExists(file)
