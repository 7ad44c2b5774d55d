"""The exporter's commands: export, reference, inspect, verify."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manifests.console import Console
from targets import TARGETS, find_targets

if TYPE_CHECKING:
    from exporter.reference.model import DeviceChoice
    from manifests.bundle import Manifest
    from manifests.progress import Progress
    from manifests.reference import Reference

_PATH = click.Path(path_type=Path)


def export_bundle(
    checkpoint: Path,
    targets: tuple[str, ...],
    out: Path,
    *,
    force: bool,
    context_length: int | None,
    progress: Progress,
) -> Manifest:
    """Export for the named targets, with the page that ships in every bundle.

    Raises:
        UnknownTarget: a name is not in the catalogue.
        TabwrightError: whatever :func:`exporter.pipeline.export` refuses.
    """
    wanted = find_targets(targets)
    # To the exporter the page is data that another package ships.
    with as_file(files("browser_harness") / "page" / "dist" / "bundle") as runtime:
        from exporter.pipeline import export as export_checkpoint

        return export_checkpoint(
            checkpoint,
            wanted,
            out,
            runtime=runtime,
            force=force,
            context_length=context_length,
            progress=progress,
        )


def write_reference(
    checkpoint: Path, bundle: Path, out: Path, *, device: DeviceChoice, progress: Progress
) -> Reference:
    """Write PyTorch's answers for ``checkpoint`` and ``bundle`` to ``out``.

    Raises:
        TabwrightError: whatever :func:`exporter.reference.make.make_reference` refuses.
    """
    from exporter.reference.make import make_reference

    return make_reference(checkpoint, bundle, out, device=device, progress=progress)


@click.command()
@click.argument("checkpoint", type=_PATH)
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    type=click.Choice(list(TARGETS)),
    help="Where the bundle is to run; repeat for several.",
)
@click.option("-o", "--output", type=_PATH, required=True, help="The bundle's folder.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@click.option(
    "--context",
    "context_length",
    type=click.IntRange(min=1),
    metavar="TOKENS",
    help="Longest context to promise; by default the checkpoint's own, at most 8192.",
)
@click.pass_obj
def export(
    console: Console,
    *,
    checkpoint: Path,
    targets: tuple[str, ...],
    output: Path,
    force: bool,
    context_length: int | None,
) -> None:
    """Turn a checkpoint into a bundle.

    Integer codes that fit a target arrive unchanged; what has to be rounded a
    second time is told, and so is its error.
    """
    from exporter.inspection import bundle_view

    manifest = export_bundle(
        checkpoint,
        targets,
        output,
        force=force,
        context_length=context_length,
        progress=console.progress,
    )
    console.show(manifest, bundle_view(manifest, ledger=False))


@click.command()
@click.argument("checkpoint", type=_PATH)
@click.option("--bundle", type=_PATH, required=True, help="The bundle made from it.")
@click.option("-o", "--output", type=_PATH, required=True, help="The file, e.g. reference.json.")
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where PyTorch runs; auto takes CUDA where there is one.",
)
@click.pass_obj
def reference(
    console: Console, *, checkpoint: Path, bundle: Path, output: Path, device: DeviceChoice
) -> None:
    """Write PyTorch's answers and speed.

    The file can be made on a machine with a GPU and judged against on any other.
    """
    written = write_reference(checkpoint, bundle, output, device=device, progress=console.progress)
    console.show(written, f"{output}: {written.device.device} ({written.device.name})")


@click.command()
@click.argument("path", type=_PATH)
@click.option("--ledger", is_flag=True, help="List what became of every tensor of a bundle.")
@click.pass_obj
def inspect(console: Console, *, path: Path, ledger: bool) -> None:
    """Tell what a checkpoint or a bundle is.

    Reads headers and manifests only; see 'verify' for a check of every byte.
    """
    from exporter.checkpoint import open_checkpoint
    from exporter.inspection import bundle_view, checkpoint_view, summarise
    from manifests.bundle import MANIFEST_NAME, read_manifest

    if (path / MANIFEST_NAME).is_file():
        manifest = read_manifest(path)
        console.show(manifest, bundle_view(manifest, ledger=ledger))
    elif ledger:
        raise click.UsageError(f"{path} is no bundle, and only a bundle has a ledger")
    else:
        summary = summarise(open_checkpoint(path))
        console.show(summary, checkpoint_view(summary))


@click.command()
@click.argument("bundle", type=_PATH)
@click.pass_obj
def verify(console: Console, *, bundle: Path) -> None:
    """Check that a bundle is whole.

    Reads every byte and compares it with the manifest; a single changed bit in any
    file is an error.
    """
    from exporter.write.verify import verify_bundle

    manifest = verify_bundle(bundle, console.progress)
    size = sum(file.size for file in manifest.files)
    text = f"{bundle}: whole ({len(manifest.files)} files, {size:,} bytes, seal {manifest.seal})"
    console.show(manifest, text)
