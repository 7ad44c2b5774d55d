"""The command that compresses a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from exporter.compress.recipes import METHODS
from manifests.console import Console
from manifests.options import PATH

if TYPE_CHECKING:
    from exporter.compress.chain import Compression


@click.command(
    epilog="\b\nMethods:\n"
    + "\n".join(f"  {each.name:<10} {each.summary}" for each in METHODS.values())
)
@click.argument("checkpoint", type=PATH)
@click.option(
    "--method",
    "methods",
    multiple=True,
    required=True,
    metavar="NAME",
    help="How; repeat to prune and then to quantise.",
)
@click.option("-o", "--output", type=PATH, required=True, help="The new checkpoint's folder.")
@click.option(
    "--sparsity",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    help="Share of each linear's weights that becomes zero.  [default: 0.5]",
)
@click.option(
    "--mask-structure",
    type=click.Choice(["0:0", "2:4"]),
    help="2:4 zeroes two of every four neighbours, 0:0 any weight.  [default: 0:0]",
)
@click.option(
    "--sparsity-profile",
    type=click.Choice(["uniform", "owl"]),
    help="owl prunes layers with many outliers less.  [default: uniform]",
)
@click.option(
    "--group-size",
    type=click.IntRange(min=1),
    help="Inputs that share a scale.  [default: the largest of 128, 64 and 32 that fits]",
)
@click.option(
    "--calibration",
    type=PATH,
    metavar="FILE",
    help="Text to calibrate with, .txt or .jsonl.  [default: English and Arabic of our own]",
)
@click.option("--samples", type=click.IntRange(min=1), help="How many.  [default: 128]")
@click.option(
    "--sequence-length",
    type=click.IntRange(min=8),
    metavar="TOKENS",
    help="Most tokens of a sample.  [default: 512]",
)
@click.option("--seed", type=int, help="Decides which samples are drawn.  [default: 0]")
@click.pass_obj
def compress(
    console: Console, /, *, checkpoint: Path, methods: tuple[str, ...], output: Path, **options: Any
) -> None:
    """Compress a checkpoint.

    Prunes or quantises a checkpoint of floats by llm-compressor or bitsandbytes.  Zeros
    that a pruning made stay zero in whatever quantises after it.  What was done is
    written to compression.json beside the weights, too.
    """
    from exporter.compress.chain import compress as carry_out
    from exporter.compress.recipes import plan

    given = {name: value for name, value in options.items() if value is not None}
    done = carry_out(checkpoint, output, *plan(methods, **given), console.progress)
    console.show(done, _told(output, done))


def _told(output: Path, done: Compression) -> str:
    from rich.filesize import decimal

    sizes = f"{decimal(done.bytes_before)} to {decimal(done.bytes_after)} of weights"
    lines = [
        f"{output}: {' then '.join(done.methods)}, {done.seconds:.0f} s",
        f"{sizes}, {done.ratio:.2f} to 1; zeros in the linears: {done.zeros:.1%}",
    ]
    if done.group_size is not None:
        lines.append(f"inputs that share a scale: {done.group_size}")
    if done.calibration is not None:
        text = done.calibration
        of = ", ".join(f"{count} {language}" for language, count in text.languages.items())
        lines.append(
            f"calibrated with {text.samples} samples ({of}), {text.tokens:,} tokens of "
            f"{text.source} (SHA-256 {text.sha256})"
        )
    return "\n".join(lines)
