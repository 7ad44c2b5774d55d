"""The command of this room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manifests import options
from manifests.console import Console
from manifests.options import PATH

if TYPE_CHECKING:
    from exporter.reference.model import DeviceChoice


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option("--bundle", type=PATH, required=True, help="The bundle made from it.")
@click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="The file, e.g. reference.json, its logits beside it; replaces an older reference.",
)
@options.lora
@options.device
@options.tasks
@options.original
@click.option(
    "--native",
    is_flag=True,
    help="Also time the bundle in onnxruntime and onnxruntime-genai, on this CPU.",
)
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="CPU threads of PyTorch and of --native; by default PyTorch's own choice.",
)
@click.pass_obj
def reference(
    console: Console,
    *,
    checkpoint: Path,
    bundle: Path,
    output: Path,
    lora: Path | None,
    device: DeviceChoice,
    tasks: Path | None,
    original: Path | None,
    native: bool,
    threads: int | None,
) -> None:
    """Write PyTorch's answers and speed.

    The file can be made on a machine with a GPU and judged against on any other.
    """
    from exporter.reference.make import make_reference

    written = make_reference(
        checkpoint,
        bundle,
        output,
        device=device,
        adapter=lora,
        tasks=tasks,
        original=original,
        threads=threads,
        native=native,
        progress=console.progress,
    )
    console.show(written, f"{output}: {written.device.device} ({written.device.name})")
