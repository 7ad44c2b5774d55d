"""The command of this room."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from manifests.console import Console

if TYPE_CHECKING:
    from exporter.reference.model import DeviceChoice

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("checkpoint", type=_PATH)
@click.option("--bundle", type=_PATH, required=True, help="The bundle made from it.")
@click.option(
    "-o",
    "--output",
    type=_PATH,
    required=True,
    help="The file, e.g. reference.json; one that is there is replaced.",
)
@click.option(
    "--lora",
    "adapter",
    type=_PATH,
    metavar="FOLDER",
    help="The PEFT adapter that was merged into the bundle.",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where PyTorch runs; auto takes CUDA where there is one.",
)
@click.option(
    "--tasks",
    type=_PATH,
    metavar="FILE",
    help="Questions with choices for 'measure --tasks', answered by the checkpoint.",
)
@click.option(
    "--original",
    type=_PATH,
    metavar="CHECKPOINT",
    help="The uncompressed model: what compression cost is told, too.",
)
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
    adapter: Path | None,
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
        adapter=adapter,
        tasks=tasks,
        original=original,
        threads=threads,
        native=native,
        progress=console.progress,
    )
    console.show(written, f"{output}: {written.device.device} ({written.device.name})")
