"""The commands that lead through both rooms: what each room does for them is one call."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manifests.errors import EXIT_GATE_FAILED, EXIT_OK

if TYPE_CHECKING:
    from browser_harness.flags import AdapterChoice
    from exporter.reference.model import DeviceChoice
    from manifests.console import Console
    from targets.catalog import RoundingMethod

#: What ``run`` leaves in its output folder.
OUTPUTS = ("bundle", "reference.json", "report.json", "report.html", "junit.xml")


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("--target", "targets", multiple=True, required=True, help="Repeat for several.")
@click.option(
    "--budget", type=click.Path(path_type=Path), help="The limits; by default docs/budget.md's."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="A folder.")
@click.option("--force", is_flag=True, help="Replace what an earlier run left there.")
@click.option(
    "--context",
    "context_length",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Longest context to promise; by default the checkpoint's own, at most 8192.",
)
@click.option(
    "--lora",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="A PEFT adapter that is merged into the checkpoint.",
)
@click.option(
    "--head-bits",
    type=click.Choice([4, 8]),
    help="Width of the output head and the embedding; by default the target's own, 8.",
)
@click.option(
    "--rounding",
    type=click.Choice(["search", "nearest"]),
    default="search",
    show_default=True,
    help="How scales are chosen for linears that come as floats.",
)
@click.option(
    "--original",
    type=click.Path(path_type=Path),
    metavar="CHECKPOINT",
    help="The uncompressed model: what compression cost is told, too.",
)
@click.option(
    "--adapter",
    type=click.Choice(["auto", "hardware", "software"]),
    default="auto",
    show_default=True,
    help="The WebGPU adapter; auto takes hardware where there is some.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where PyTorch runs; auto takes CUDA where there is one.",
)
@click.option("--threads", type=click.IntRange(min=1), help="WASM threads.")
@click.option(
    "--browser",
    type=click.Path(path_type=Path),
    help="The browser's executable; otherwise one is found.",
)
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
    from targets import find_targets

    console: Console = context.obj
    progress = console.progress
    # What would fail at the end is told before minutes are spent.
    if budget is not None:
        check_budget(Budget.load(budget), console.targets)
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
        progress=progress,
    )
    judged, verdict = judging.judge_report(report, budget, console.targets)
    judging.write_views(judged, html=html, junit=junit)
    console.show(judged, render(judged))
    context.exit(exit_status(verdict))


@click.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="What it was made from."
)
@click.option("--target", help="A target of the bundle.  [default: the first]")
@click.option("--lora", type=click.Path(path_type=Path), metavar="FOLDER", help="As for 'export'.")
@click.option("--tolerance", type=click.FloatRange(min=0), help="Relative deviation allowed.")
@click.option(
    "--adapter",
    type=click.Choice(["auto", "hardware", "software"]),
    default="auto",
    show_default=True,
    help="The WebGPU adapter; auto takes hardware where there is some.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where PyTorch runs; auto takes CUDA where there is one.",
)
@click.option("--browser", type=click.Path(path_type=Path), help="The browser's executable.")
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
